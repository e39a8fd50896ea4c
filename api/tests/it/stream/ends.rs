//! The callers that may open streams, the limits on their number, and the reasons for which they end.

use std::time::{Duration, Instant, UNIX_EPOCH};

use serde_json::json;
use shared::domain::status::Action;
use shared::runtime::http_server::Drain;
use shared::test_support::TestDb;

use super::{Frames, api_with_a_return, events, refused};
use crate::harness::{Api, CUSTOMER, db_with_a_return, revoke};
use crate::moves::change;
use crate::tokens::{Format, Issuer, Keys};

#[tokio::test]
async fn a_final_status_is_sent_and_ends_the_stream() {
    for actions in [
        &[Action::Reject][..],
        &[Action::Cancel],
        &[Action::Approve, Action::Claim, Action::Confirm],
    ] {
        let (api, id) = api_with_a_return(&[]).await;
        change(&api.db, id, actions).await;
        let all = events(&api.db, id, 0).await;
        let last = all.len();
        let ends = |from: usize| (all[from..].to_vec(), "final".to_owned());
        assert_eq!(Frames::of(&api, id).await.rest().await, ends(last - 1));
        for (seen, from) in [(0, 0), (1, 1), (last, last), (last + 7, last)] {
            let seen = i64::try_from(seen).expect("small");
            assert_eq!(Frames::after(&api, id, seen).await.rest().await, ends(from));
        }
        api.stop().await;
    }
}

#[tokio::test]
async fn a_later_event_of_a_refunded_return_is_sent_after_a_reconnect() {
    let (api, id) = api_with_a_return(&[]).await;
    change(
        &api.db,
        id,
        &[Action::Approve, Action::Claim, Action::Confirm],
    )
    .await;
    change(&api.db, id, &[Action::Disagreement]).await;
    let statuses = Frames::after(&api, id, 4).await.rest().await;
    let expected = vec![(5, "refunded".to_owned())];
    assert_eq!(statuses, (expected, "final".to_owned()));
    api.stop().await;
}

#[tokio::test]
async fn p13_only_the_owner_and_admins_may_open_a_stream() {
    let (api, id) = api_with_a_return(&[]).await;
    for format in Format::ALL {
        let token = |user, role| api.token_of(format, user, role);
        let stranger = token(43, "customer");
        refused(&api, id, &stranger).await.problem(404, "not-found");
        refused(&api, id + 1, &stranger)
            .await
            .problem(404, "not-found");
        let auditor = token(8, "auditor");
        refused(&api, id, &auditor).await.problem(403, "forbidden");
    }
    // A query is refused before the token is checked: it may contain a token.
    for query in ["token=x", "last-event-id=1", ""] {
        let path = format!("/returns/{id}/stream?{query}");
        let answer = api.get(&path, "no token").await;
        let (status, code) = match query {
            "" => (401, "unauthenticated"),
            _ => (400, "bad-request"),
        };
        answer.problem(status, code);
    }
    api.stop().await;
}

/// It outlives the deadlines of requests, which end when the response begins.
#[tokio::test]
async fn p13_a_stream_ends_with_its_token() {
    let flags = [
        "--api-request-timeout-secs",
        "1",
        "--api-header-timeout-secs",
        "1",
        "--auth-leeway-secs",
        "0",
    ];
    let (db, id) = db_with_a_return().await;
    let url = db.url().to_owned();
    let api = Api::start_on(db, &url, &flags).await;
    let now = UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let token = |extra: &str, value| {
        let mut claims = json!({"user_id": CUSTOMER.0, "role": "customer"});
        claims[extra] = value;
        api.keys.mint(claims)
    };
    let revoked = token("jti", json!("revoked-1"));
    let short = token("exp", json!(now + 8));
    let mut lasting = Frames::of(&api, id).await;
    let mut of_revoked = Frames::open(&api, api.address, id, &revoked, None).await;
    let mut of_short = Frames::open(&api, api.address, id, &short, None).await;
    for frames in [&mut lasting, &mut of_revoked, &mut of_short] {
        assert_eq!(frames.status().await.0, 1);
    }
    revoke(&api.db, "token_id", "revoked-1").await;
    api.until_metric("auth_revoked_tokens 1").await;
    let heartbeat = of_revoked.rest();
    assert_eq!(heartbeat.await, (vec![], "unauthorized".to_owned()));
    assert_eq!(of_short.rest().await, (vec![], "unauthorized".to_owned()));
    assert_eq!(lasting.next().await.as_deref(), Some(":"), "a heartbeat");
    change(&api.db, id, &[Action::Approve]).await;
    assert_eq!(lasting.status().await.0, 2);
    api.stop().await;
}

#[tokio::test]
async fn p13_a_revoked_token_receives_nothing_more() {
    let (api, id) = api_with_a_return(&[]).await;
    let token = json!({"user_id": CUSTOMER.0, "role": "customer", "jti": "revoked-1"});
    let token = api.keys.mint(token);
    let mut frames = Frames::open(&api, api.address, id, &token, None).await;
    assert_eq!(frames.status().await.0, 1);
    revoke(&api.db, "token_id", "revoked-1").await;
    api.until_metric("auth_revoked_tokens 1").await;
    change(&api.db, id, &[Action::Approve]).await;
    assert_eq!(frames.rest().await, (vec![], "unauthorized".to_owned()));
    api.stop().await;
}

#[tokio::test]
async fn p13_a_stream_does_not_outlive_the_key_of_its_token() {
    let (retired, keys) = (Issuer::new(2), Keys::generate());
    keys.write(&[&retired]);
    let db = TestDb::create().await;
    let url = db.url().to_owned();
    let api = Api::start_with_keys(db, &url, &[], keys).await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    let id = api.file(1).await.return_id();
    let owner = json!({"user_id": CUSTOMER.0, "role": "customer"});
    let mut streams = Vec::new();
    for format in Format::ALL {
        let kept = api.token_of(format, CUSTOMER.0, "customer");
        let lost = retired.mint_as(format, owner.clone());
        let mut pair = Vec::new();
        for token in [&kept, &lost] {
            let mut frames = Frames::open(&api, api.address, id, token, None).await;
            assert_eq!(frames.status().await.0, 1);
            pair.push(frames);
        }
        streams.push((pair, lost));
    }
    api.keys.write(&[]);
    for key_use in ["sig", "biscuit"] {
        api.until_metric(&format!(r#"auth_keys{{use="{key_use}"}} 1"#))
            .await;
    }
    change(&api.db, id, &[Action::Approve]).await;
    for (mut pair, lost) in streams {
        assert_eq!(pair[0].status().await.0, 2, "its key is still there");
        assert_eq!(pair[1].event().await, None, "the stream ends with its key");
        let answer = refused(&api, id, &lost).await;
        answer.problem(401, "unauthenticated");
    }
    api.stop().await;
}

#[tokio::test]
async fn p12_streams_are_limited_per_caller_and_in_total() {
    let flags = ["--streams-max", "3", "--streams-per-caller", "2"];
    let (api, id) = api_with_a_return(&flags).await;
    let customer = api.customer_token();
    let first = Frames::of(&api, id).await;
    let _second = Frames::of(&api, id).await;
    let answer = refused(&api, id, &customer).await;
    answer.problem(429, "too-many-streams");
    let _of_admin = Frames::open(&api, api.address, id, &api.admin_token(), None).await;
    let answer = refused(&api, id, &api.token_of(Format::Jwt, 9, "admin")).await;
    answer.problem(429, "too-many-streams");
    for limit in ["caller", "all"] {
        api.until_metric(&format!(r#"streams_refused_total{{limit="{limit}"}} 1"#))
            .await;
    }
    drop(first);
    api.until_metric("streams_open 2").await;
    let mut third = Frames::of(&api, id).await;
    assert_eq!(third.status().await.0, 1);
    api.stop().await;
}

#[tokio::test]
async fn p11_open_streams_do_not_delay_the_shutdown() {
    const STREAMS: usize = 100;
    let api = Api::start_with(&["--streams-per-caller", "1000"]).await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    let id = api.file(1).await.return_id();
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut frames = Frames::of(&api, id).await;
        assert_eq!(frames.status().await.0, 1);
        streams.push(frames);
    }
    api.until_metric(&format!("streams_open {STREAMS}")).await;
    let asked = Instant::now();
    let (_db, drain) = api.stop_and_keep_db().await;
    assert_eq!(drain, Drain::Complete);
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    for frames in &mut streams {
        assert_eq!(frames.event().await, None);
    }
}
