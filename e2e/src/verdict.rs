//! Every record of both topics against every committed event.

use std::cmp::Ordering;
use std::collections::HashMap;

use anyhow::{Context, bail, ensure};
use futures_util::TryStreamExt;
use serde_json::Value;
use sqlx::Row;
use uuid::Uuid;

use crate::kafka_log::{self, Record};
use crate::system::System;

/// What both topics hold.
#[derive(Debug)]
pub struct Verdict {
    /// Different events: each was committed, and each committed one is here.
    pub events: u64,
    pub repeats: Repeats,
}

/// Records of an event that was there already, by who sent them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Repeats {
    /// A later owner of the shard, who did not know that the event had been sent.
    pub by_heirs: u64,
    /// A former owner of the shard, who was frozen.
    pub late: u64,
    /// The owner who had sent it before, after its producer had failed.
    pub by_owners: u64,
}

impl Repeats {
    pub fn count(&self) -> u64 {
        self.by_heirs + self.late + self.by_owners
    }
}

#[derive(Default)]
struct Log {
    /// Of new returns, and of later changes.
    topics: [String; 2],
    /// The order of each return, as keys and values tell it.
    orders: HashMap<i64, i64>,
    /// By return and seq: the event and the highest epoch of its records.
    events: HashMap<(i64, i64), (Uuid, i64)>,
    last_seq: HashMap<i64, i64>,
    repeats: Repeats,
}

impl Log {
    fn take(&mut self, record: &Record) -> anyhow::Result<()> {
        let event: Uuid = record.header("ce_id").context("ce_id")?.parse()?;
        let return_id = record.header("ce_subject").context("ce_subject")?.parse()?;
        let seq = record.seq().context("seq")?;
        let epoch: i64 = record
            .header("x-outbox-epoch")
            .context("x-outbox-epoch")?
            .parse()?;
        self.check_content(record, return_id, seq)?;
        if let Some((known, last_epoch)) = self.events.get_mut(&(return_id, seq)) {
            ensure!(
                *known == event,
                "P2: return {return_id} seq {seq} is both {known} and {event}"
            );
            match epoch.cmp(last_epoch) {
                Ordering::Greater => self.repeats.by_heirs += 1,
                Ordering::Less => self.repeats.late += 1,
                Ordering::Equal => self.repeats.by_owners += 1,
            }
            *last_epoch = epoch.max(*last_epoch);
            return Ok(());
        }
        self.events.insert((return_id, seq), (event, epoch));
        // Seq 1 is alone in its topic.
        if seq > 1 {
            let last = self.last_seq.insert(return_id, seq).unwrap_or(1);
            ensure!(
                last + 1 == seq,
                "P4: return {return_id} seq {seq} first appears after {last}"
            );
        }
        Ok(())
    }

    /// Topic, key and value say the same as the headers.
    fn check_content(&mut self, record: &Record, return_id: i64, seq: i64) -> anyhow::Result<()> {
        let topic = &self.topics[usize::from(seq > 1)];
        let value: Value = serde_json::from_str(&record.payload)?;
        let order_id: i64 = record.key.parse()?;
        let same_order = *self.orders.entry(return_id).or_insert(order_id) == order_id;
        let is_right = record.topic == *topic
            && same_order
            && value["order_id"] == order_id
            && value["return_id"] == return_id
            && (seq == 1 || value["seq"] == seq);
        ensure!(
            is_right,
            "P2: return {return_id} seq {seq} is not as written: {} {} {}",
            record.topic,
            record.key,
            record.payload
        );
        Ok(())
    }
}

/// P2, P3, P4: every committed event once or more, first appearances in the order of seq without a gap, nothing else.
///
/// # Errors
/// A promise is broken, with its name, or the topics or the table cannot be read.
pub async fn judge(system: &System) -> anyhow::Result<Verdict> {
    let (brokers, topics) = (system.brokers.clone(), system.topics.clone());
    let read = move || {
        let mut log = Log {
            topics: topics.clone(),
            ..Log::default()
        };
        kafka_log::for_each(&brokers, &topics, |record| log.take(&record))?;
        anyhow::Ok(log)
    };
    let mut log = tokio::task::spawn_blocking(read).await??;
    let events = u64::try_from(log.events.len())?;
    let mut committed = sqlx::query(
        "SELECT e.return_id, e.seq, e.event_id, r.order_id FROM return_events AS e \
         JOIN returns AS r ON r.id = e.return_id",
    )
    .fetch(&system.db.pool);
    while let Some(row) = committed.try_next().await? {
        let (return_id, seq): (i64, i32) = (row.try_get(0)?, row.try_get(1)?);
        let (event, order_id): (Uuid, i64) = (row.try_get(2)?, row.try_get(3)?);
        ensure!(
            log.orders
                .get(&return_id)
                .is_none_or(|order| *order == order_id),
            "P2: return {return_id} has the key of another order than {order_id}"
        );
        match log.events.remove(&(return_id, i64::from(seq))) {
            Some((sent, _)) => ensure!(
                sent == event,
                "P2: return {return_id} seq {seq} is {event}, Kafka says {sent}"
            ),
            None => bail!("P3: return {return_id} seq {seq} never reached Kafka"),
        }
    }
    ensure!(
        log.events.is_empty(),
        "P2: {} events in Kafka were never committed",
        log.events.len()
    );
    Ok(Verdict {
        events,
        repeats: log.repeats,
    })
}
