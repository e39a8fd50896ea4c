//! What was written, and whether the topics hold all of it in order.

use std::collections::HashMap;

use super::{Event, Seen};

/// `seqs` events of each of `returns`, in rounds: all of seq 1, then all of seq 2. One return per order.
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

/// P2, P3, P4: the topics hold exactly what was written, each event as it was, first occurrences in order without a
/// gap. Answers how many records repeat an earlier one.
pub(crate) fn assert_history(seen: &[Seen], written: &[Event]) -> usize {
    let by_id: HashMap<String, &Event> = written
        .iter()
        .map(|event| (event.event_id.to_string(), event))
        .collect();
    assert_eq!(by_id.len(), written.len(), "event ids are unique");
    for record in seen {
        let event = by_id.get(&record.event_id);
        let event = event.unwrap_or_else(|| panic!("P2: never committed: {}", of(record)));
        let is_same = event.return_id == record.return_id
            && event.seq == record.seq
            && event.order_id.to_string() == record.key
            && event.payload == record.payload;
        assert!(is_same, "P2: not as written: {}", of(record));
    }
    let distinct = assert_in_order(seen, &last_seqs(written));
    seen.len() - distinct
}

/// P4: in each topic the first occurrences of one return's events ascend, and both together hold 1..=n. Answers how
/// many different events there are.
pub(crate) fn assert_in_order(seen: &[Seen], last_seqs: &HashMap<i64, i32>) -> usize {
    let mut first: HashMap<(i64, &str), Vec<i32>> = HashMap::new();
    for seen in seen {
        let seqs = first.entry((seen.return_id, &seen.topic)).or_default();
        if !seqs.contains(&seen.seq) {
            seqs.push(seen.seq);
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

/// Without its payload, which may be large.
fn of(record: &Seen) -> String {
    let Seen {
        topic,
        return_id,
        seq,
        ..
    } = record;
    format!("return {return_id}, seq {seq} in {topic}")
}
