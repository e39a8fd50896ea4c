use crate::harness::records::{Message, Sending};
use crate::harness::wire::RawRecord;
use crate::harness::{World, body, until, until_true};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_a_return_that_cannot_be_claimed_does_not_hold_up_its_group() {
    let world = World::new().await;
    let filed = world.file_all(1..=10, false).await;
    // An attempt that no claim made: inserting the first one fails on the primary key, for good.
    let broken = filed[4];
    world
        .execute(
            "INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, next_check_at, \
             created_at, updated_at) VALUES (?, 1, 'stray', 1, 'EUR', 'parked', NOW(6), NOW(6), NOW(6))",
            broken.return_id.0,
        )
        .await;
    // In one partition, so in one batch.
    let sending = |filed| Sending {
        message: Message::default().value(body(filed)),
        partition: Some(0),
        time_ms: None,
    };
    let sendings: Vec<Sending> = filed.iter().map(sending).collect();
    world.send_all(&sendings).await;
    let running = world.start(world.simulated(), &[]).await;
    for one in filed.iter().filter(|one| one.return_id != broken.return_id) {
        world.wait_for(one.return_id, "refunded").await;
    }
    let kept = until("the broken one is kept", || async {
        let kept = world.dead_letters().await;
        (!kept.is_empty()).then_some(kept)
    })
    .await;
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].message, sendings[4].message);
    assert_eq!(kept[0].reason, "claim_failed");
    assert_eq!(world.status(broken.return_id).await.0, "initiated");
    assert_eq!(world.effects(), 9);
    running.stop().await;
}

/// The client does not return such a header. The record becomes a dead letter with its other headers, and its return is
/// not delayed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_a_header_name_that_is_not_text_loses_only_that_header() {
    let world = World::new().await;
    let filed = world.file(1).await;
    let header = |name: &[u8], value: Option<&[u8]>| (name.to_vec(), value.map(<[u8]>::to_vec));
    let record = RawRecord {
        time_ms: -1,
        payload: body(&filed),
        headers: vec![
            header(b"before", Some(b"1")),
            header(b"\xff", Some(b"2")),
            header(b"after", None),
        ],
    };
    let offset = world.send_raw(&record).await;
    let flood = RawRecord {
        headers: vec![header(b"\xff", None); 1_000],
        ..record.clone()
    };
    world.send_raw(&flood).await;
    let running = world
        .start(world.simulated(), &["--initiated-grace-secs=3600"])
        .await;
    until_true("both are put aside", || {
        running.messages("dead_letter") == 2
    })
    .await;
    let kept = world.dead_letters().await;
    let readable = Message::default()
        .value(body(&filed))
        .and("before", "1")
        .and("after", "")
        .null("after");
    assert_eq!((kept[0].offset, kept[0].time_ms), (offset, -1));
    assert_eq!(kept[0].message, readable);
    assert_eq!(kept[1].message, Message::default().value(body(&filed)));
    assert!(kept.iter().all(|one| one.reason == "unreadable_header"));

    world.announce(&filed).await;
    world.wait_for(filed.return_id, "refunded").await;
    running.stop().await;
}
