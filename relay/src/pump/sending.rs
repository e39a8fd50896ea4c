//! Publish: rows that may go are enqueued in order, rows that must wait are put back, rows that cannot be sent are
//! parked.

use std::time::Instant;

use shared::runtime::clock::Moment;
use shared::runtime::db::DbError;
use shared::runtime::trace::BatchSpan;

use super::holding::Held;
use super::parking::RowsToPark;
use super::{Pump, RETRY_PAUSE};
use crate::delivery::Enqueued;
use crate::error::RestartCause;
use crate::pending::{Pending, RowKey};
use crate::predecessor::{self, NextStep, Predecessors, RowBefore, UnverifiedRow};
use crate::publisher::Publish;
use crate::store::outbox;

/// What became of a row.
enum Sent {
    /// Further rows of this read may be sent.
    More,
    Stop,
    Held,
}

impl<P: Publish> Pump<P> {
    /// Looks up the predecessors of the rows whose predecessor is not known to be sent.
    pub(super) async fn look_up_predecessors(
        &mut self,
        rows: &[Pending],
    ) -> Result<Predecessors, RestartCause> {
        let allows = |row: &Pending| {
            let state = self.owned.get(row.key.shard);
            state.is_some_and(|state| state.sent_seqs.allows(row.return_id, row.seq))
        };
        let has_held = |row: &&UnverifiedRow| {
            let state = self.owned.get(row.key.shard);
            state.is_some_and(|state| state.held.has_return(row.return_id))
        };
        let (held, unverified): (Vec<UnverifiedRow>, Vec<UnverifiedRow>) =
            predecessor::unverified(rows, allows)
                .into_iter()
                .map(UnverifiedRow::from)
                .partition(|row| has_held(&row));
        let found = match unverified.as_slice() {
            [] => Some(Vec::new()),
            rows => {
                let read = self.read_predecessors(rows).await;
                self.monitors.predecessors.note(read)
            }
        };
        self.settle_waiting()?;
        let Some(found) = found else {
            self.reads.not_before(Instant::now() + RETRY_PAUSE);
            // Unverified rows are put back; all others can be sent.
            return Ok(Predecessors::default());
        };
        let is_sent = |key: RowKey, id: i64| {
            let state = self.owned.get(key.shard);
            state.is_some_and(|state| state.unsettled.contains(&id))
        };
        let is_held = |row: &UnverifiedRow, topic: &str| {
            let key = &row.msg_key;
            self.delivery.is_held(topic, key, &self.owned)
        };
        let mut predecessors = Predecessors::of(&unverified, &found, is_sent, is_held);
        predecessors.hold(&held);
        Ok(predecessors)
    }

    async fn read_predecessors(
        &mut self,
        unverified: &[UnverifiedRow],
    ) -> Result<Vec<RowBefore>, DbError> {
        let (listed, deadline) = (unverified.to_vec(), self.owned.work_deadline());
        self.database
            .run("read_predecessors", deadline, move |conn| {
                Box::pin(async move { Ok(outbox::read_predecessors(conn, &listed).await?) })
            })
            .await
    }

    /// Returns the rows that are held back.
    pub(super) async fn send_all(
        &mut self,
        rows: &[Pending],
        predecessors: &Predecessors,
        batch: &BatchSpan,
    ) -> Result<Held, RestartCause> {
        let mut to_park = RowsToPark::default();
        let mut held = Held::default();
        let mut can_send = true;
        for row in rows {
            // For each row: a lease may have ended during the look-up, or the machine was suspended since the last row.
            let mut step = self.next_step(row, predecessors, Moment::now());
            if step.is_some() && held.has_return(row) {
                step = Some(NextStep::Hold);
            }
            match step.filter(|_| can_send) {
                None => self.owned.put_back(row.key, row.key.id),
                Some(NextStep::Park) => self.leave(&mut to_park, row, None),
                Some(NextStep::WaitFor(id)) => {
                    self.metrics.held_rows.inc();
                    self.owned.put_back(row.key, id);
                }
                Some(NextStep::Hold) => held.add(row),
                Some(NextStep::Send) => match self.send(row, batch, &mut to_park)? {
                    Sent::Held => held.add(row),
                    Sent::More => {}
                    Sent::Stop => can_send = false,
                },
            }
        }
        self.park(to_park).await;
        Ok(held)
    }

    /// `None`: the shard may not be read now, so the row must not be sent.
    fn next_step(
        &self,
        row: &Pending,
        predecessors: &Predecessors,
        now: Moment,
    ) -> Option<NextStep> {
        let state = self.owned.get(row.key.shard);
        let state = state.filter(|state| state.is_readable(now))?;
        Some(if state.comes_after_parked(row) {
            NextStep::Park
        } else {
            predecessors.next_step(row, &state.sent_seqs)
        })
    }

    fn send(
        &mut self,
        row: &Pending,
        batch: &BatchSpan,
        to_park: &mut RowsToPark,
    ) -> Result<Sent, RestartCause> {
        match self.delivery.enqueue(row, batch, &mut self.owned)? {
            Enqueued::Done => return Ok(Sent::More),
            Enqueued::Held => return Ok(Sent::Held),
            Enqueued::InIsolation => {}
            Enqueued::QueueFull => {
                self.reads.not_before(Instant::now() + RETRY_PAUSE);
                self.owned.put_back(row.key, row.key.id);
            }
            Enqueued::MustWait => self.owned.put_back(row.key, row.key.id),
            Enqueued::TooLarge(limit) => {
                let reason = format!("larger than the topic's max.message.bytes of {limit}");
                self.leave(to_park, row, Some(reason));
                return Ok(Sent::More);
            }
        }
        Ok(Sent::Stop)
    }
}
