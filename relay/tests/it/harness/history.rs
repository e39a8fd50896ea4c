//! Checks that the topics hold all events that were written, in order.

use std::collections::HashMap;

use super::{Event, Received};

/// `seqs` events of each of `returns`: first seq 1 of all returns, then seq 2. One return per order.
pub(crate) fn history(returns: std::ops::Range<i64>, seqs: i32) -> Vec<Event> {
    let round = |seq| returns.clone().map(move |id| Event::new(id, id, seq));
    (1..=seqs).flat_map(round).collect()
}

/// The last seq of each return.
fn last_seqs(events: &[Event]) -> HashMap<i64, i32> {
    let mut last = HashMap::new();
    for event in events {
        let seq = last.entry(event.return_id).or_insert(event.seq);
        *seq = event.seq.max(*seq);
    }
    last
}

/// P2, P3, P4: the topics hold exactly the written events, unchanged, and their first occurrences are in order without a
/// gap. Returns how many records repeat an earlier one.
pub(crate) fn assert_history(received: &[Received], written: &[Event]) -> usize {
    let by_id: HashMap<String, &Event> = written
        .iter()
        .map(|event| (event.event_id.to_string(), event))
        .collect();
    assert_eq!(by_id.len(), written.len(), "event ids are unique");
    for record in received {
        let event = by_id.get(&record.event_id);
        let event = event.unwrap_or_else(|| panic!("P2: never committed: {}", describe(record)));
        let is_same = event.return_id == record.return_id
            && event.seq == record.seq
            && event.order_id.to_string() == record.key
            && event.payload == record.payload;
        assert!(is_same, "P2: changed: {}", describe(record));
    }
    let distinct = assert_in_order(received, &last_seqs(written));
    received.len() - distinct
}

/// P4: in each topic the first occurrences of a return's events ascend, and both topics together hold 1..=n. Returns the
/// number of different events.
pub(crate) fn assert_in_order(received: &[Received], last_seqs: &HashMap<i64, i32>) -> usize {
    let mut first: HashMap<(i64, &str), Vec<i32>> = HashMap::new();
    for received in received {
        let seqs = first
            .entry((received.return_id, &received.topic))
            .or_default();
        if !seqs.contains(&received.seq) {
            seqs.push(received.seq);
        }
    }
    let mut all: HashMap<i64, Vec<i32>> = HashMap::new();
    for ((return_id, topic), seqs) in first {
        assert!(
            seqs.is_sorted(),
            "P4: return {return_id} in {topic}: {seqs:?}"
        );
        all.entry(return_id).or_default().extend(seqs);
    }
    let mut distinct = 0;
    for (return_id, last) in last_seqs {
        let mut seqs = all.remove(return_id).unwrap_or_default();
        seqs.sort_unstable();
        assert_eq!(
            seqs,
            (1..=*last).collect::<Vec<_>>(),
            "P3: return {return_id}"
        );
        distinct += seqs.len();
    }
    assert!(all.is_empty(), "P2: unknown returns: {all:?}");
    distinct
}

/// Describes a record without its payload, which may be large.
fn describe(record: &Received) -> String {
    let Received {
        topic,
        return_id,
        seq,
        ..
    } = record;
    format!("return {return_id}, seq {seq} in {topic}")
}
