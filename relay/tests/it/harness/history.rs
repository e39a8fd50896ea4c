//! Checks that the topics hold all events that were written, in order.

use std::collections::HashMap;

use shared::test_support::BrokenPromise;
use shared::test_support::topic_order::{Repeats, TopicOrder};

use super::{Event, Record};

/// `seqs` events of each of `returns`: first seq 1 of all returns, then seq 2. One return per order.
pub(crate) fn history(returns: std::ops::Range<i64>, seqs: i32) -> Vec<Event> {
    let round = |seq| returns.clone().map(move |id| Event::new(id, id, seq));
    (1..=seqs).flat_map(round).collect()
}

/// P2, P3, P4: the topics hold exactly the written events, unchanged, and their first occurrences are in order without a
/// gap. Returns how many records repeat an earlier one.
pub(crate) fn assert_history(records: &[Record], written: &[Event]) -> usize {
    let by_id: HashMap<String, &Event> = written
        .iter()
        .map(|event| (event.event_id.to_string(), event))
        .collect();
    assert_eq!(by_id.len(), written.len(), "event ids are unique");
    for record in records {
        let event = by_id.get(record.event_id());
        let event = event.unwrap_or_else(|| panic!("P2: never committed: {}", describe(record)));
        let is_same = event.return_id == record.return_id()
            && i64::from(event.seq) == record.seq()
            && event.order_id.to_string() == record.key
            && event.payload == record.payload;
        assert!(is_same, "P2: changed: {}", describe(record));
    }
    let repeats = in_order(records, written).unwrap_or_else(|broken| panic!("{broken}"));
    usize::try_from(repeats.count()).expect("it fits")
}

fn in_order(records: &[Record], written: &[Event]) -> Result<Repeats, BrokenPromise> {
    let mut order = TopicOrder::default();
    for record in records {
        order.take(record)?;
    }
    for event in written {
        let event_id = event.event_id.to_string();
        order.confirm(event.return_id, event.seq.into(), &event_id)?;
    }
    order.finish()
}

/// Describes a record without its payload, which may be large.
fn describe(record: &Record) -> String {
    let (topic, key, offset) = (&record.topic, &record.key, record.offset);
    format!("{topic}, key {key}, offset {offset}: {:?}", record.headers)
}
