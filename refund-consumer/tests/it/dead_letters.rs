use sqlx::Row;

use crate::harness::{World, body, until};

type Bad<'a> = (Option<Vec<u8>>, Vec<(&'a str, Vec<u8>)>, &'a str);
type Stored = (i32, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>, String);

async fn stored(world: &World) -> Vec<Stored> {
    let rows = sqlx::query(
        "SELECT partition_id, offset_id, msg_key, payload, headers, reason FROM dead_letters ORDER BY id",
    )
    .fetch_all(&world.db.pool)
    .await
    .expect("dead letters");
    rows.iter()
        .map(|row| {
            (
                row.get("partition_id"),
                row.get("offset_id"),
                row.get("msg_key"),
                row.get("payload"),
                row.get("headers"),
                row.get("reason"),
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_what_cannot_be_used_is_kept_byte_for_byte_and_the_partition_goes_on() {
    let world = World::new().await;
    let good = world.file(1).await;
    let other = world.file(2).await;
    let large = vec![b'x'; 1_500_000];
    let wrong_order = format!(r#"{{"return_id":{},"order_id":99}}"#, other.return_id).into_bytes();
    let id = |id: &str| {
        vec![
            ("ce_id", id.as_bytes().to_vec()),
            ("odd", vec![0, 0xff, b'"']),
        ]
    };
    let bad: Vec<Bad<'_>> = vec![
        (None, vec![], "empty"),
        (Some(b"\x00\xffnot json".to_vec()), id("x"), "bad_event_id"),
        (Some(b"\x00\xffnot json".to_vec()), vec![], "not_json"),
        (Some(large), vec![], "too_large"),
        (Some(b"{}".to_vec()), vec![], "missing_field"),
        (
            Some(body(&good)),
            vec![("ce_type", b"return.initiated.v2".to_vec())],
            "unknown_type",
        ),
        (
            Some(br#"{"return_id":987654,"order_id":1}"#.to_vec()),
            vec![],
            "unknown_return",
        ),
        (Some(wrong_order), vec![], "other_order"),
        (
            Some(body(&other)),
            id("019ab000-0000-7000-8000-000000000001"),
            "other_event",
        ),
    ];
    let mut expected = Vec::new();
    for (payload, headers, reason) in bad {
        // One key, so one partition: the good one comes after all of them.
        let (partition, offset) = world.send(Some("k"), payload.as_deref(), &headers).await;
        let hex = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let headers: Vec<(&str, String)> = headers
            .iter()
            .map(|(name, value)| (*name, hex(value)))
            .collect();
        let headers = serde_json::to_vec(&headers).expect("plain data");
        expected.push((
            partition,
            offset,
            Some(b"k".to_vec()),
            payload,
            headers,
            reason.to_owned(),
        ));
    }
    world.send(Some("k"), Some(&body(&good)), &[]).await;

    let running = world
        .start(world.simulated(), &["--initiated-grace-secs=3600"])
        .await;
    world.wait_for(good.return_id, "refunded").await;
    let mut kept = stored(&world).await;
    // Those of one claim may be written in another order than they came.
    kept.sort_by_key(|letter| letter.1);
    assert_eq!(kept, expected);
    assert_eq!(world.status(other.return_id).await.0, "initiated");
    assert_eq!(world.effects(), 1);
    assert_eq!(running.messages("dead_letter"), 9);
    running.stop().await;

    // Read again from the beginning: what is kept is accepted, not doubled.
    let running = world
        .start(
            world.simulated(),
            &["--consumer-group=it-again", "--initiated-grace-secs=3600"],
        )
        .await;
    until("all are read again", || async {
        (running.messages("dead_letter") == 9).then_some(())
    })
    .await;
    assert_eq!(stored(&world).await.len(), 9);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_a_return_that_cannot_be_claimed_does_not_hold_up_its_group() {
    let world = World::new().await;
    let mut filed = Vec::new();
    for order in 1..=10 {
        filed.push(world.file(order).await);
    }
    // An attempt that no claim made: inserting the first one fails on the primary key, for good.
    let broken = filed[4];
    world
        .execute(
            "INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, next_check_at, \
             created_at, updated_at) VALUES (?, 1, 'stray', 1, 'EUR', 'parked', NOW(6), NOW(6), NOW(6))",
            broken.return_id.0,
        )
        .await;
    for one in &filed {
        world.send(Some("k"), Some(&body(one)), &[]).await;
    }
    let running = world.start(world.simulated(), &[]).await;
    for one in filed.iter().filter(|one| one.return_id != broken.return_id) {
        world.wait_for(one.return_id, "refunded").await;
    }
    let kept = until("the broken one is kept", || async {
        let kept = stored(&world).await;
        (!kept.is_empty()).then_some(kept)
    })
    .await;
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].3.as_deref(), Some(body(&broken).as_slice()));
    assert_eq!(kept[0].5, "claim_failed");
    assert_eq!(world.status(broken.return_id).await.0, "initiated");
    assert_eq!(world.effects(), 9);
    running.stop().await;
}
