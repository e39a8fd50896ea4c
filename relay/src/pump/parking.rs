//! Rows that cannot be sent are moved to `outbox_parked`, with the later rows of their order; the shard goes on.

use std::collections::BTreeMap;
use std::time::Instant;

use shared::domain::ids::Shard;
use shared::runtime::db::{DbError, Retry, TransactionError};

use super::{Pump, RETRY_PAUSE};
use crate::pending::{Pending, RowKey};
use crate::publisher::Publish;
use crate::store::lease::FencingToken;
use crate::store::parking::{self, ParkOutcome, RowToPark};

const FOLLOWS: &str = "follows a parked record of the same order";

/// Why a parking transaction is rolled back.
#[derive(Debug, thiserror::Error)]
enum ParkError {
    #[error("the lease or the rows have changed")]
    Stale,
    #[error("database")]
    Database(#[from] DbError),
}

/// Rows of one turn that must be parked, by shard.
#[derive(Debug, Default)]
pub(super) struct RowsToPark(BTreeMap<Shard, Vec<RowToPark>>);

impl<P: Publish> Pump<P> {
    /// Collects a row to park. Without a reason of its own it follows a parked row of its order.
    pub(super) fn leave(
        &mut self,
        to_park: &mut RowsToPark,
        row: &Pending,
        reason: Option<String>,
    ) {
        let state = self.owned.get_mut(row.key.shard);
        if let Some(keys) = state.and_then(|state| state.parked_keys.as_mut()) {
            keys.insert(&row.msg_key, row.return_id, row.seq);
        }
        self.delivery.end_isolation(row.key.event_id);
        let rows = to_park.0.entry(row.key.shard).or_default();
        rows.push(RowToPark {
            key: row.key,
            attempts: i32::from(reason.is_some()),
            reason: reason.unwrap_or_else(|| FOLLOWS.to_owned()),
        });
    }

    /// Parks the collected rows, shard by shard.
    pub(super) async fn park(&mut self, to_park: RowsToPark) {
        let mut is_available = true;
        for (shard, rows) in to_park.0 {
            if is_available {
                is_available = self.park_in(shard, rows).await;
            } else if let Some(state) = self.owned.get_mut(shard) {
                // MySQL does not respond. Another wait could hide the end of a lease; the rows are read again.
                state.reset_order();
            }
        }
    }

    /// Parks a record that Kafka refused in isolation. Later rows of its order are parked when they are read again.
    pub(super) async fn park_refused(&mut self, key: RowKey, reason: String) {
        let row = RowToPark {
            key,
            reason,
            attempts: 1,
        };
        self.park_in(key.shard, vec![row]).await;
    }

    /// With any outcome, the shard is read again from 0 with its parked keys from the table: they decide which rows are
    /// held back. `false`: MySQL is not available.
    async fn park_in(&mut self, shard: Shard, rows: Vec<RowToPark>) -> bool {
        let Some(token) = self.owned.fencing_token(shard) else {
            return true;
        };
        if let Some(state) = self.owned.get_mut(shard) {
            state.reset_order();
        }
        let moved = self.move_to_parked(token, rows.clone()).await;
        let outcome = self.monitors.park.note(moved);
        match outcome {
            Some(ParkOutcome::Parked) => self.note_parked(&rows),
            Some(ParkOutcome::Stale) => {
                let shard = shard.0;
                tracing::info!(shard, "not parked: the lease or the rows have changed");
            }
            None => {}
        }
        if outcome != Some(ParkOutcome::Parked) {
            self.reads.not_before(Instant::now() + RETRY_PAUSE);
        }
        outcome.is_some()
    }

    async fn move_to_parked(
        &mut self,
        token: FencingToken,
        rows: Vec<RowToPark>,
    ) -> Result<ParkOutcome, DbError> {
        let deadline = self.owned.work_deadline();
        let moved = self
            .parking_database
            .transaction("park", deadline, Retry::NEVER, move |conn| {
                let (token, rows) = (token.clone(), rows.clone());
                Box::pin(async move {
                    let outcome = parking::park(conn, &token, &rows).await;
                    match outcome.map_err(DbError::from)? {
                        ParkOutcome::Parked => Ok(()),
                        ParkOutcome::Stale => Err(ParkError::Stale),
                    }
                })
            })
            .await;
        match moved {
            Ok(()) => Ok(ParkOutcome::Parked),
            Err(TransactionError::Conflict(error) | TransactionError::Refused(error)) => {
                match error {
                    ParkError::Stale => Ok(ParkOutcome::Stale),
                    ParkError::Database(error) => Err(error),
                }
            }
            // Either way the shard is read again: from the outbox, or as parked.
            Err(TransactionError::CommitUnknown { cause, .. }) => Err(cause),
        }
    }

    fn note_parked(&self, rows: &[RowToPark]) {
        for row in rows {
            self.metrics.parkings.inc();
            tracing::error!(
                shard = row.key.shard.0,
                outbox.id = row.key.id,
                event.id = %row.key.event_id,
                reason = row.reason,
                "event parked: an operator must decide about it"
            );
        }
    }
}
