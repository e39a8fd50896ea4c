//! Publish: what may go is enqueued in order, what must wait is put back, what cannot be sent leaves.

use std::time::Instant;

use shared::domain::ids::Shard;

use super::parking::Leaving;
use super::{Pump, RETRY_PAUSE};
use crate::error::{Failure, StoreError};
use crate::pending::{Pending, RowKey};
use crate::predecessor::{self, Decision, Suspect, Verdicts};
use crate::publisher::{NotEnqueued, Publish, Token};
use crate::store;

/// Payload and key aside, a record holds less than this: see the columns of `outbox`.
const ENVELOPE_ROOM: usize = 2 * 1024;

/// What became of a row that may be sent.
enum Sent {
    Enqueued,
    /// Nothing else may be enqueued until its delivery is known.
    EnqueuedAlone,
    MustWait,
    TooLarge(usize),
}

impl<P: Publish> Pump<P> {
    /// Asks the table about the rows whose predecessor is not known to be sent.
    pub(super) async fn look_up_predecessors(
        &mut self,
        rows: &[Pending],
    ) -> Result<Verdicts, StoreError> {
        let allows = |row: &Pending| {
            let work = self.shards.get(&row.key.shard);
            work.is_some_and(|work| work.memory.allows(row.return_id, row.seq))
        };
        let suspects: Vec<Suspect> = predecessor::suspects(rows, allows)
            .into_iter()
            .map(Suspect::from)
            .collect();
        if suspects.is_empty() {
            return Ok(Verdicts::default());
        }
        let asked = suspects.clone();
        let found = self
            .session
            .run(move |mut conn| async move {
                let found = store::read_predecessors(&mut conn, &asked).await;
                (conn, found)
            })
            .await?;
        let is_sent = |key: RowKey, id: i64| {
            let work = self.shards.get(&key.shard);
            work.is_some_and(|work| work.unsettled.contains(&id))
        };
        Ok(Verdicts::of(&suspects, &found, is_sent))
    }

    /// Sends what may go, puts back what must wait, parks what cannot be sent.
    pub(super) async fn send_all(
        &mut self,
        rows: &[Pending],
        verdicts: &Verdicts,
    ) -> Result<(), Failure> {
        let mut leaving = Leaving::default();
        let mut open = true;
        // Looking up may have taken long enough for a lease to end.
        let now = Instant::now();
        for row in rows {
            let work = self.shards.get(&row.key.shard);
            let Some(work) = work.filter(|work| work.is_readable(now)) else {
                self.put_back(row, row.key.id);
                continue;
            };
            let decision = if work.parked.contains(&row.msg_key) {
                Decision::Follow
            } else {
                verdicts.decide(row, &work.memory)
            };
            match decision {
                _ if !open => self.put_back(row, row.key.id),
                Decision::Follow => self.leave(&mut leaving, row, None),
                Decision::After(id) => {
                    self.metrics.held_rows.inc();
                    self.put_back(row, id);
                }
                Decision::Send => match self.send(row)? {
                    Sent::Enqueued => {}
                    Sent::EnqueuedAlone => open = false,
                    Sent::MustWait => {
                        self.put_back(row, row.key.id);
                        open = false;
                    }
                    Sent::TooLarge(limit) => {
                        let reason =
                            format!("larger than the topic's max.message.bytes of {limit}");
                        self.leave(&mut leaving, row, Some(reason));
                    }
                },
            }
        }
        self.park(leaving).await;
        Ok(())
    }

    fn send(&mut self, row: &Pending) -> Result<Sent, Failure> {
        let Some(limit) = self.topics.limit(&self.publisher, &row.topic) else {
            return Ok(Sent::MustWait);
        };
        if row.payload.len() + ENVELOPE_ROOM > limit && row.record_bytes() > limit {
            return Ok(Sent::TooLarge(limit));
        }
        let is_suspicious = self.alone.contains_key(&row.key.event_id);
        if is_suspicious && self.unacked() > 0 {
            return Ok(Sent::MustWait);
        }
        let work = self
            .shards
            .get_mut(&row.key.shard)
            .expect("looked up by the caller");
        let token = Token::new(row.key.shard, work.in_flight.next_number());
        match self
            .publisher
            .enqueue(row, work.held.epoch, token, self.flow)
        {
            Ok(()) => {
                work.note_sent(row);
                Ok(if is_suspicious {
                    Sent::EnqueuedAlone
                } else {
                    Sent::Enqueued
                })
            }
            Err(NotEnqueued::QueueFull) => {
                self.pace.wait(Instant::now() + RETRY_PAUSE);
                Ok(Sent::MustWait)
            }
            Err(NotEnqueued::TooLarge) => Ok(Sent::TooLarge(limit)),
            Err(NotEnqueued::Failed(code)) => Err(Failure::Undelivered(code)),
        }
    }

    /// The row was not sent: its shard is read again from row `id` on.
    pub(super) fn put_back(&mut self, row: &Pending, id: i64) {
        if let Some(work) = self.shards.get_mut(&row.key.shard) {
            work.cursor.rewind_to(id.min(row.key.id));
        }
    }

    /// Their turn must come, whatever new rows other shards bring meanwhile.
    pub(super) fn put_suspicious_shards_first(&self, rows: &mut [Pending]) {
        if self.alone.is_empty() {
            return;
        }
        let is_suspicious = |row: &&Pending| self.alone.contains_key(&row.key.event_id);
        let shards: Vec<Shard> = rows
            .iter()
            .filter(is_suspicious)
            .map(|row| row.key.shard)
            .collect();
        rows.sort_by_key(|row| !shards.contains(&row.key.shard));
    }
}
