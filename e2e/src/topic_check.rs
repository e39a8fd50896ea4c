//! Every record of both topics against every committed event.

use std::collections::HashMap;

use anyhow::ensure;
use futures_util::TryStreamExt;
use serde_json::Value;
use shared::domain::event::TopicArgs;
use shared::test_support::topic_order::{Repeats, TopicOrder};
use shared::test_support::topics::{self, Record};
use sqlx::Row;
use uuid::Uuid;

use crate::system::System;

/// What both topics hold.
#[derive(Debug)]
pub struct TopicContents {
    /// Different events: each was committed, and each committed one is here.
    pub events: u64,
    pub repeats: Repeats,
}

/// P2, P3, P4: every committed event once or more, first records in the order of seq without a gap, nothing else. Needs an
/// empty outbox.
///
/// # Errors
/// A promise is broken, with its name, or the topics or the table cannot be read.
pub async fn check(system: &System) -> anyhow::Result<TopicContents> {
    let (brokers, topics) = (system.brokers.clone(), system.topic_args());
    let mut log = tokio::task::spawn_blocking(move || read(&brokers, &topics)).await??;
    let events = u64::try_from(log.order.events())?;
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
        log.order
            .confirm(return_id, seq.into(), &event.to_string())?;
    }
    let repeats = log.order.finish()?;
    Ok(TopicContents { events, repeats })
}

#[derive(Default)]
struct Log {
    order: TopicOrder,
    /// The order of each return, as keys and values name it.
    orders: HashMap<i64, i64>,
}

/// Blocks.
fn read(brokers: &str, topics: &TopicArgs) -> anyhow::Result<Log> {
    let mut log = Log::default();
    let names = [&*topics.topic_returns, &topics.topic_status];
    topics::for_each(brokers, &names, |record| log.take(&record, &names))?;
    Ok(log)
}

impl Log {
    fn take(&mut self, record: &Record, topics: &[&str; 2]) -> anyhow::Result<()> {
        self.check_content(record, topics)?;
        Ok(self.order.take(record)?)
    }

    /// Topic, key and value agree with the headers.
    fn check_content(&mut self, record: &Record, topics: &[&str; 2]) -> anyhow::Result<()> {
        let (return_id, seq) = (record.return_id(), record.seq());
        let value: Value = serde_json::from_slice(&record.payload)?;
        let order_id: i64 = record.key.parse()?;
        let same_order = *self.orders.entry(return_id).or_insert(order_id) == order_id;
        let is_right = record.topic == topics[usize::from(seq > 1)]
            && same_order
            && value["order_id"] == order_id
            && value["return_id"] == return_id
            && (seq == 1 || value["seq"] == seq);
        ensure!(
            is_right,
            "P2: return {return_id} seq {seq} is not as written: {} {} {value}",
            record.topic,
            record.key,
        );
        Ok(())
    }
}
