//! The contents of a stream: the current status, then each change.

use std::time::Duration;

use shared::domain::status::Action;
use tokio::task::JoinSet;

use super::{Frames, api_with_a_return, events};
use crate::harness::{Api, CUSTOMER, count};
use crate::moves::{change, change_in};

#[tokio::test]
async fn the_first_frame_is_the_current_status() {
    let (api, id) = api_with_a_return(&[]).await;
    assert_eq!(
        api.metric("streams_look_seconds_count").await,
        0.0,
        "nothing is watched, nothing is asked"
    );
    change(&api.db, id, &[Action::Approve, Action::Claim]).await;
    let mut frames = Frames::of(&api, id).await;
    let headers = frames.response.headers();
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
    ] {
        assert_eq!(headers[name], value);
    }
    let frame = frames.next().await.expect("a frame");
    let at = frame
        .strip_prefix(
            "event: status\nid: 3\ndata: {\"status\":\"refund_pending\",\"seq\":3,\"at\":\"",
        )
        .and_then(|rest| rest.strip_suffix("\"}"))
        .unwrap_or_else(|| panic!("{frame}"));
    assert!(at.len() == 27 && at.ends_with('Z'), "{at}");
    api.until_metric("streams_open 1").await;
    api.until_metric("streams_watched_returns 1").await;
    drop(frames);
    api.until_metric("streams_open 0").await;
    api.until_metric("streams_watched_returns 0").await;
    api.until_metric(
        r#"http_server_request_duration_seconds_count{method="GET",route="/returns/{id}/stream",status="200"} 1"#,
    )
    .await;
    api.stop().await;
}

#[tokio::test]
async fn each_change_is_sent_once_in_order() {
    let (api, id) = api_with_a_return(&[]).await;
    let mut customer = Frames::of(&api, id).await;
    let mut admin = Frames::open(&api, api.address, id, &api.admin_token(), None).await;
    assert_eq!(customer.status().await, (1, "initiated".to_owned()));
    assert_eq!(admin.status().await, (1, "initiated".to_owned()));
    let steps: [&[Action]; 5] = [
        &[Action::Approve],
        &[Action::Claim],
        // In one transaction, and more than are in memory for streams that are behind.
        &[Action::OutcomeUnknown; 30],
        &[Action::Decline, Action::Retry],
        &[Action::Confirm],
    ];
    for step in steps {
        change(&api.db, id, step).await;
    }
    let expected = (events(&api.db, id, 1).await, "final".to_owned());
    assert_eq!(expected.0.len(), 35);
    assert_eq!(customer.rest().await, expected);
    assert_eq!(admin.rest().await, expected);
    api.until_metric("streams_events_total 72").await;
    api.stop().await;
}

#[tokio::test]
async fn a_transaction_that_commits_late_is_sent_late() {
    let (api, first) = api_with_a_return(&[]).await;
    api.db.seed_orders(2, 1, CUSTOMER).await;
    let second = api.file(2).await.return_id();
    let (mut early, mut late) = (
        Frames::of(&api, second).await,
        Frames::of(&api, first).await,
    );
    assert_eq!((early.status().await.0, late.status().await.0), (1, 1));
    let mut tx = api.db.pool.begin().await.expect("begin");
    change_in(&mut tx, first, &[Action::Approve]).await;
    change(&api.db, second, &[Action::Approve]).await;
    assert_eq!(early.status().await.0, 2);
    tx.commit().await.expect("commit");
    assert_eq!(late.status().await.0, 2);
    let ids = "SELECT (SELECT MAX(id) FROM return_events) - (SELECT id FROM return_events WHERE seq = 2 ORDER BY id LIMIT 1)";
    assert!(
        count(&api.db, ids).await > 0,
        "the late one has the lower id"
    );
    api.stop().await;
}

#[tokio::test]
async fn an_unreadable_event_is_sent_and_delays_no_other() {
    let (api, id) = api_with_a_return(&[]).await;
    let mut listening = Frames::of(&api, id).await;
    assert_eq!(listening.status().await.0, 1);
    sqlx::raw_sql("DROP TRIGGER return_events_no_update")
        .execute(&api.db.pool)
        .await
        .expect("dropped");
    let mut tx = api.db.pool.begin().await.expect("begin");
    change_in(&mut tx, id, &[Action::Approve]).await;
    sqlx::query("UPDATE return_events SET event_data = '{\"to\":' WHERE return_id = ? AND seq = 2")
        .bind(id)
        .execute(&mut *tx)
        .await
        .expect("half of the data is lost");
    tx.commit().await.expect("commit");
    change(&api.db, id, &[Action::Claim]).await;
    let mut reopened = Frames::after(&api, id, 1).await;
    for frames in [&mut listening, &mut reopened] {
        assert_eq!(frames.status().await, (2, "unreadable".to_owned()));
        assert_eq!(frames.status().await, (3, "refund_pending".to_owned()));
    }
    api.stop().await;
}

/// Streams are opened at every moment, while each return is changed as fast as MySQL allows.
#[tokio::test]
async fn changes_while_a_stream_opens_are_neither_lost_nor_repeated() {
    const RETURNS: i64 = 12;
    const STREAMS: usize = 8;
    let api = Api::start_with(&["--streams-per-caller", "1000"]).await;
    api.db.seed_orders(1, RETURNS, CUSTOMER).await;
    let mut changing = JoinSet::new();
    let mut listening = JoinSet::new();
    let api = std::sync::Arc::new(api);
    for order in 1..=RETURNS {
        let id = api.file(order).await.return_id();
        let of_changes = std::sync::Arc::clone(&api);
        changing.spawn(async move {
            for action in [Action::Approve, Action::Claim] {
                change(&of_changes.db, id, &[action]).await;
            }
            for _ in 0..20 {
                change(&of_changes.db, id, &[Action::OutcomeUnknown]).await;
            }
            change(&of_changes.db, id, &[Action::Confirm]).await;
        });
        for number in 0..STREAMS {
            let api = std::sync::Arc::clone(&api);
            listening.spawn(async move {
                tokio::time::sleep(Duration::from_millis(23) * u32::try_from(number).expect("few"))
                    .await;
                let statuses = Frames::of(&api, id).await.rest().await;
                (id, statuses)
            });
        }
    }
    changing.join_all().await;
    for (id, (statuses, reason)) in listening.join_all().await {
        assert_eq!(reason, "final");
        let first = statuses.first().expect("at least one").0;
        assert_eq!(statuses, events(&api.db, id, first - 1).await);
    }
    std::sync::Arc::into_inner(api)
        .expect("no task is left")
        .stop()
        .await;
}
