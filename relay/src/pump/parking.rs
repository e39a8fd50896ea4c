//! Rows that cannot be sent leave the outbox, visibly, with the later rows of their order; the shard goes on.

use std::collections::BTreeMap;
use std::time::Instant;

use shared::domain::ids::Shard;

use super::{Pump, RETRY_PAUSE};
use crate::pending::{Pending, RowKey};
use crate::publisher::Publish;
use crate::store::{self, ParkOutcome, Parking, Tenure};

const FOLLOWS: &str = "follows a parked record of the same order";

/// Rows of one turn that are to be parked, by shard.
#[derive(Debug, Default)]
pub(super) struct Leaving(BTreeMap<Shard, Vec<Parking>>);

impl<P: Publish> Pump<P> {
    /// Notes that a row is to be parked; without a reason of its own it follows one that is.
    pub(super) fn leave(&mut self, leaving: &mut Leaving, row: &Pending, reason: Option<String>) {
        if let Some(work) = self.shards.get_mut(&row.key.shard) {
            work.parked.insert(row.msg_key.clone());
        }
        self.alone.remove(&row.key.event_id);
        leaving.0.entry(row.key.shard).or_default().push(Parking {
            key: row.key,
            attempts: i32::from(reason.is_some()),
            reason: reason.unwrap_or_else(|| FOLLOWS.to_owned()),
        });
    }

    pub(super) async fn park(&mut self, leaving: Leaving) {
        let mut is_answered = true;
        for (shard, rows) in leaving.0 {
            if is_answered {
                is_answered = self.park_in(shard, rows).await;
            } else if let Some(work) = self.shards.get_mut(&shard) {
                // Several waits in a row would hide the end of a lease from us.
                work.reset_order();
            }
        }
    }

    /// A record that was refused when sent alone. Its followers are parked when they are read again.
    pub(super) async fn park_refused(&mut self, key: RowKey, reason: String) {
        let parking = Parking {
            key,
            reason,
            attempts: 1,
        };
        self.park_in(key.shard, vec![parking]).await;
    }

    /// Whatever comes of it, the shard is read again from 0 with its parked keys: they, not our memory, say what
    /// must be held back. `false` if MySQL did not do it.
    async fn park_in(&mut self, shard: Shard, rows: Vec<Parking>) -> bool {
        let Some(work) = self.shards.get_mut(&shard) else {
            return true;
        };
        work.reset_order();
        let tenure = Tenure {
            shard,
            owner: self.leases.me.clone(),
            epoch: work.held.epoch,
            redrive_gen: work.held.redrive_gen,
        };
        let parking = rows.clone();
        let outcome = self
            .session
            .run(move |mut conn| async move {
                let outcome = store::park(&mut conn, &tenure, &parking).await;
                (conn, outcome)
            })
            .await;
        match outcome {
            Ok(ParkOutcome::Parked) => self.note_parked(&rows),
            Ok(ParkOutcome::Stale) => {
                tracing::info!(shard = shard.0, "not parked: the lease or the rows changed");
                self.pace.wait(Instant::now() + RETRY_PAUSE);
            }
            Err(error) => {
                self.metrics.database_error("park", &error);
                self.pace.wait(Instant::now() + RETRY_PAUSE);
                return false;
            }
        }
        true
    }

    fn note_parked(&self, rows: &[Parking]) {
        for row in rows {
            self.metrics.parkings.inc();
            tracing::error!(
                shard = row.key.shard.0,
                outbox.id = row.key.id,
                event.id = %row.key.event_id,
                reason = row.reason,
                "event parked: it waits for a person"
            );
        }
    }
}
