//! Publish: rows that may go are enqueued in order, rows that must wait are put back, rows that cannot be sent are
//! parked.

use std::time::Instant;

use shared::runtime::db::DbError;

use super::parking::RowsToPark;
use super::{Pump, RETRY_PAUSE};
use crate::delivery::Enqueued;
use crate::error::RestartCause;
use crate::pending::{Pending, RowKey};
use crate::predecessor::{self, NextStep, Predecessors, UnverifiedRow};
use crate::publisher::Publish;
use crate::store::outbox;

impl<P: Publish> Pump<P> {
    /// Looks up the predecessors of the rows whose predecessor is not known to be sent.
    pub(super) async fn look_up_predecessors(
        &mut self,
        rows: &[Pending],
    ) -> Result<Predecessors, DbError> {
        let allows = |row: &Pending| {
            let state = self.owned.get(row.key.shard);
            state.is_some_and(|state| state.sent_seqs.allows(row.return_id, row.seq))
        };
        let unverified: Vec<UnverifiedRow> = predecessor::unverified(rows, allows)
            .into_iter()
            .map(UnverifiedRow::from)
            .collect();
        if unverified.is_empty() {
            return Ok(Predecessors::default());
        }
        let (listed, deadline) = (unverified.clone(), self.owned.work_deadline());
        let found: Result<_, DbError> = self
            .database
            .run("read_predecessors", deadline, move |conn| {
                Box::pin(async move { Ok(outbox::read_predecessors(conn, &listed).await?) })
            })
            .await;
        let is_sent = |key: RowKey, id: i64| {
            let state = self.owned.get(key.shard);
            state.is_some_and(|state| state.unsettled.contains(&id))
        };
        Ok(Predecessors::of(&unverified, &found?, is_sent))
    }

    pub(super) async fn send_all(
        &mut self,
        rows: &[Pending],
        predecessors: &Predecessors,
    ) -> Result<(), RestartCause> {
        let mut to_park = RowsToPark::default();
        let mut can_send = true;
        // The look-up may have taken so long that a lease has ended.
        let now = Instant::now();
        for row in rows {
            let step = self.next_step(row, predecessors, now);
            match step.filter(|_| can_send) {
                None => self.owned.put_back(row.key, row.key.id),
                Some(NextStep::Park) => self.leave(&mut to_park, row, None),
                Some(NextStep::WaitFor(id)) => {
                    self.metrics.held_rows.inc();
                    self.owned.put_back(row.key, id);
                }
                Some(NextStep::Send) => can_send = self.send(row, &mut to_park)?,
            }
        }
        self.park(to_park).await;
        Ok(())
    }

    /// `None`: the shard may not be read now, so the row must not be sent.
    fn next_step(
        &self,
        row: &Pending,
        predecessors: &Predecessors,
        now: Instant,
    ) -> Option<NextStep> {
        let state = self.owned.get(row.key.shard);
        let state = state.filter(|state| state.is_readable(now))?;
        Some(if state.has_parked(&row.msg_key) {
            NextStep::Park
        } else {
            predecessors.next_step(row, &state.sent_seqs)
        })
    }

    /// Returns whether further rows of this read may be sent.
    fn send(&mut self, row: &Pending, to_park: &mut RowsToPark) -> Result<bool, RestartCause> {
        match self.delivery.enqueue(row, &mut self.owned)? {
            Enqueued::Done => return Ok(true),
            Enqueued::InIsolation => {}
            Enqueued::QueueFull => {
                self.reads.not_before(Instant::now() + RETRY_PAUSE);
                self.owned.put_back(row.key, row.key.id);
            }
            Enqueued::MustWait => self.owned.put_back(row.key, row.key.id),
            Enqueued::TooLarge(limit) => {
                let reason = format!("larger than the topic's max.message.bytes of {limit}");
                self.leave(to_park, row, Some(reason));
                return Ok(true);
            }
        }
        Ok(false)
    }
}
