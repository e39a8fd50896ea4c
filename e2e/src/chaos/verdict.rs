//! Every record of both topics against every committed event.

use std::collections::HashMap;

use anyhow::{Context, bail, ensure};
use futures_util::TryStreamExt;
use sqlx::Row;
use uuid::Uuid;

use crate::kafka_log::{self, Record};
use crate::system::System;

/// What both topics hold.
#[derive(Debug)]
pub struct Verdict {
    /// Different events: each was committed, and each committed one is here.
    pub events: u64,
    /// Records of an event that was there already.
    pub duplicates: u64,
    /// Those among them that a former owner of the shard appended after its successor's first record of the event.
    pub late: u64,
}

#[derive(Default)]
struct Log {
    /// By return and seq: the event and the epoch of its first record.
    first: HashMap<(i64, i64), (Uuid, i64)>,
    last_seq: HashMap<i64, i64>,
    duplicates: u64,
    late: u64,
}

impl Log {
    fn take(&mut self, record: &Record) -> anyhow::Result<()> {
        let event: Uuid = record.header("ce_id").context("ce_id")?.parse()?;
        let return_id = record.header("ce_subject").context("ce_subject")?.parse()?;
        let seq = record.seq().context("seq")?;
        let epoch = record
            .header("x-outbox-epoch")
            .context("x-outbox-epoch")?
            .parse()?;
        if let Some((known, first_epoch)) = self.first.get(&(return_id, seq)) {
            ensure!(
                *known == event,
                "P2: return {return_id} seq {seq} is both {known} and {event}"
            );
            self.duplicates += 1;
            self.late += u64::from(epoch < *first_epoch);
            return Ok(());
        }
        self.first.insert((return_id, seq), (event, epoch));
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
}

/// P2, P3, P4: every committed event once or more, first appearances in the order of seq without a gap, nothing else.
pub(super) async fn judge(system: &System) -> anyhow::Result<Verdict> {
    let (brokers, topics) = (system.brokers.clone(), system.topics.clone());
    let read = move || {
        let mut log = Log::default();
        kafka_log::for_each(&brokers, &topics, |record| log.take(&record))?;
        anyhow::Ok(log)
    };
    let mut log = tokio::task::spawn_blocking(read).await??;
    let events = u64::try_from(log.first.len())?;
    let mut committed =
        sqlx::query("SELECT return_id, seq, event_id FROM return_events").fetch(&system.db.pool);
    while let Some(row) = committed.try_next().await? {
        let (return_id, seq): (i64, i32) = (row.try_get(0)?, row.try_get(1)?);
        let event: Uuid = row.try_get(2)?;
        match log.first.remove(&(return_id, i64::from(seq))) {
            Some((sent, _)) => ensure!(
                sent == event,
                "P2: return {return_id} seq {seq} is {event}, Kafka says {sent}"
            ),
            None => bail!("P3: return {return_id} seq {seq} never reached Kafka"),
        }
    }
    ensure!(
        log.first.is_empty(),
        "P2: {} events in Kafka were never committed",
        log.first.len()
    );
    Ok(Verdict {
        events,
        duplicates: log.duplicates,
        late: log.late,
    })
}
