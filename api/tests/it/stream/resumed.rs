//! An interrupted stream resumes where it was: at another process, after a cut, after a long pause.

use std::time::{Duration, Instant};

use shared::domain::status::Action;
use shared::runtime::http_server::Drain;
use shared::test_support::TestDb;
use shared::test_support::mysql_proxy::MysqlProxy;

use super::{Frames, api_with_a_return, ask, events};
use crate::harness::{Answer, Api, CUSTOMER, until};
use crate::moves::change;

#[tokio::test]
async fn p11_a_stopped_api_ends_its_streams_and_another_one_resumes_them() {
    let (api, id) = api_with_a_return(&[]).await;
    let other = api.start_another().await;
    let mut frames = Frames::open(&api, other.address, id, &api.customer_token(), None).await;
    change(&api.db, id, &[Action::Approve]).await;
    assert_eq!((frames.status().await.0, frames.status().await.0), (1, 2));
    let asked = Instant::now();
    other.stop.cancel();
    assert_eq!(
        frames.event().await,
        None,
        "no word of an end: there is more"
    );
    let drain = other.task.await.expect("no panic").expect("a clean end");
    assert_eq!(drain, Drain::Complete);
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );

    change(&api.db, id, &[Action::Claim, Action::Decline]).await;
    let mut frames = Frames::after(&api, id, 2).await;
    assert_eq!((frames.status().await.0, frames.status().await.0), (3, 4));
    change(&api.db, id, &[Action::Retry, Action::Confirm]).await;
    let rest = frames.rest().await;
    assert_eq!(rest, (events(&api.db, id, 4).await, "final".to_owned()));
    api.stop().await;
}

/// The stream had ended with `refunded`; the provider took the refund back days later.
#[tokio::test]
async fn a_refund_that_came_back_is_in_the_stream_and_in_the_return() {
    let (api, id) = api_with_a_return(&[]).await;
    change(
        &api.db,
        id,
        &[Action::Approve, Action::Claim, Action::Confirm],
    )
    .await;
    change(&api.db, id, &[Action::Reverse]).await;
    let mut frames = Frames::after(&api, id, 4).await;
    assert_eq!(frames.status().await, (5, "refund_failed".to_owned()));
    let shown = api
        .get(&format!("/returns/{id}"), &api.customer_token())
        .await;
    assert_eq!(shown.json()["status"], "refund_failed");
    api.stop().await;
}

#[tokio::test]
async fn a_client_that_was_away_for_long_gets_everything() {
    let (api, id) = api_with_a_return(&[]).await;
    change(&api.db, id, &[Action::Approve, Action::Claim]).await;
    change(&api.db, id, &[Action::OutcomeUnknown; 500]).await;
    let mut frames = Frames::after(&api, id, 0).await;
    assert_eq!(frames.status().await.0, 1);
    change(&api.db, id, &[Action::Confirm]).await;
    let rest = frames.rest().await;
    assert_eq!(rest, (events(&api.db, id, 1).await, "final".to_owned()));
    // The client knows a later event than the rows have, as after the restore of a backup.
    api.db.seed_orders(2, 1, CUSTOMER).await;
    let fresh = api.file(2).await.return_id();
    let mut frames = Frames::after(&api, fresh, 7).await;
    assert_eq!(frames.status().await, (1, "initiated".to_owned()));
    api.stop().await;
}

#[tokio::test]
async fn an_invalid_event_id_is_refused() {
    let (api, id) = api_with_a_return(&[]).await;
    let response = ask(&api, api.address, id, &api.customer_token(), Some(-1)).await;
    Answer::read(response).await.problem(400, "bad-request");
    api.stop().await;
}

#[tokio::test]
async fn mysql_away_or_silent_only_delays_the_events() {
    let db = TestDb::create().await;
    let (proxy, url) = MysqlProxy::before(db.url()).await;
    let api = Api::start_on(db, &url, &[]).await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    let id = api.file(1).await.return_id();
    let mut frames = Frames::of(&api, id).await;
    assert_eq!(frames.status().await.0, 1);
    proxy.go_away();
    // Not through the proxy.
    change(&api.db, id, &[Action::Approve]).await;
    until_above(&api, "streams_look_failures_total", 2.0).await;
    change(&api.db, id, &[Action::Claim]).await;
    proxy.come_back();
    assert_eq!((frames.status().await.0, frames.status().await.0), (2, 3));

    proxy.fall_silent();
    change(&api.db, id, &[Action::Confirm]).await;
    let rest = frames.rest().await;
    assert_eq!(rest, (events(&api.db, id, 3).await, "final".to_owned()));
    api.stop().await;
}

async fn until_above(api: &Api, name: &str, limit: f64) {
    let what = format!("{name} is above {limit}");
    until(&what, Duration::from_secs(15), || async {
        (api.metric(name).await > limit).then_some(())
    })
    .await;
}
