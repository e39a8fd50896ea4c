use time::OffsetDateTime;

use super::*;

const ID: ReturnId = ReturnId(7);

fn event(seq: i32) -> StatusEvent {
    StatusEvent::new(seq, "refund_pending", OffsetDateTime::UNIX_EPOCH)
}

fn seqs(subscription: &Subscription, above: i32) -> Option<Vec<i32>> {
    let known = subscription.known.borrow();
    let events = known.above(above)?;
    Some(events.iter().map(|event| event.seq).collect())
}

#[test]
fn the_last_events_are_in_memory_and_a_gap_is_noticed() {
    let hub = Hub::default();
    let subscription = hub.subscribe(ID, 3);
    assert_eq!(seqs(&subscription, 3), Some(vec![]));
    assert_eq!(
        seqs(&subscription, 2),
        None,
        "the third was never in memory"
    );
    hub.publish((4..=13).map(|seq| (ID, event(seq))).collect());
    assert_eq!(seqs(&subscription, 13), Some(vec![]));
    assert_eq!(seqs(&subscription, 11), Some(vec![12, 13]));
    assert_eq!(seqs(&subscription, 5), Some((6..=13).collect()));
    assert_eq!(
        seqs(&subscription, 4),
        None,
        "the fifth is no longer in memory"
    );
}

#[test]
fn known_events_are_not_delivered_again() {
    let hub = Hub::default();
    let mut subscription = hub.subscribe(ID, 3);
    hub.publish(vec![(ID, event(2)), (ID, event(3))]);
    assert!(!subscription.known.has_changed().expect("open"));
    hub.publish(vec![(ID, event(4)), (ID, event(4))]);
    assert!(subscription.known.has_changed().expect("open"));
    subscription.known.mark_unchanged();
    assert_eq!(seqs(&subscription, 3), Some(vec![4]));
}

#[test]
fn a_return_is_watched_until_its_last_stream_ends() {
    let hub = Hub::default();
    let first = hub.subscribe(ID, 3);
    hub.publish(vec![(ID, event(4))]);
    let second = hub.subscribe(ID, 9);
    assert_eq!(
        hub.watched(),
        [(ID, 4)],
        "the last known seq of the first one stays"
    );
    drop(first);
    assert_eq!(hub.watched(), [(ID, 4)]);
    drop(second);
    assert_eq!(hub.watched(), []);
}

/// Two streams that end at the same time each see the other as still open.
#[test]
fn streams_that_end_together_leave_nothing_watched() {
    let hub = Hub::default();
    for _ in 0..2_000 {
        let pair = [hub.subscribe(ID, 3), hub.subscribe(ID, 3)];
        std::thread::scope(|scope| {
            for one in pair {
                scope.spawn(move || drop(one));
            }
        });
        assert_eq!(hub.watched(), []);
    }
}
