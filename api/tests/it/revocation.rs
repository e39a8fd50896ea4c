//! Revoked tokens are refused at most five seconds later. If the list cannot be read for too long, all tokens are refused.

use std::time::{Duration, Instant, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE;
use biscuit_auth::UnverifiedBiscuit;
use serde_json::json;
use shared::auth::jwt_revocation_id;
use shared::test_support::TestDb;
use shared::test_support::mysql_proxy::MysqlProxy;

use crate::harness::{Api, pause, revoke};
use crate::logs::Logs;
use crate::tokens::{Format, READ_ONLY, attenuate};

/// The promised five seconds as a number of requests with a pause of 20 ms after each: four seconds of
/// pauses. Counted, not timed, because a request waits for the machine and for MySQL just as the read of the list does.
const REQUESTS: usize = 200;

/// Checks that the token is refused within five seconds, and from then on.
async fn refused_in_time(api: &Api, what: &str, token: &str) {
    for _ in 0..REQUESTS {
        let status = status(api, token).await;
        if status == 401 {
            return;
        }
        assert_eq!(status, 404, "{what}");
        pause().await;
    }
    panic!("{what}: still let in");
}

async fn status(api: &Api, token: &str) -> u16 {
    api.get("/returns/1", token).await.status
}

fn block_ids(token: &str) -> Vec<String> {
    let raw = BASE64_URL_SAFE.decode(token).expect("base64");
    let ids = UnverifiedBiscuit::from(raw)
        .expect("a Biscuit")
        .revocation_identifiers();
    ids.iter().map(hex::encode).collect()
}

#[tokio::test]
async fn p13_a_revoked_token_and_all_tokens_derived_from_it_are_refused_within_five_seconds() {
    let api = Api::start().await;
    let of = |format, jti: &str| {
        api.keys.mint_as(
            format,
            json!({"user_id": 42, "role": "customer", "jti": jti}),
        )
    };
    let child_of = |token: &str| attenuate(token, READ_ONLY);
    let (jwt, parent) = (of(Format::Jwt, "shop-1"), of(Format::Biscuit, "shop-2"));
    let (child, grandchild) = (child_of(&parent), child_of(&child_of(&parent)));
    let unnamed = api.token_of(Format::Biscuit, 42, "customer");
    let unnamed_jwt = api.token_of(Format::Jwt, 43, "customer");
    let (left, right) = (child_of(&unnamed), child_of(&unnamed));
    let below = child_of(&left);

    // The revoked token, the tokens that are refused with it, and those that stay valid.
    let cases = [
        (
            "token_id",
            "shop-1".to_owned(),
            vec![&jwt],
            vec![&parent, &unnamed, &unnamed_jwt],
        ),
        (
            "token_id",
            "shop-2".to_owned(),
            vec![&parent, &child, &grandchild],
            vec![&unnamed, &left],
        ),
        (
            "revocation_id",
            block_ids(&left)[1].clone(),
            vec![&left, &below],
            vec![&unnamed, &right],
        ),
        (
            "revocation_id",
            block_ids(&unnamed)[0].clone(),
            vec![&unnamed, &right],
            vec![&unnamed_jwt],
        ),
        (
            "revocation_id",
            jwt_revocation_id(&unnamed_jwt),
            vec![&unnamed_jwt],
            vec![],
        ),
    ];
    let witness = of(Format::Biscuit, "shop-3");
    for (kind, name, refused, let_in) in cases {
        for token in refused.iter().chain(&let_in) {
            assert_eq!(status(&api, token).await, 404, "before {kind} {name}");
        }
        revoke(&api.db, kind, &name).await;
        refused_in_time(&api, &name, refused[0]).await;
        for token in refused {
            assert_eq!(status(&api, token).await, 401, "after {kind} {name}");
        }
        for token in let_in.into_iter().chain([&witness]) {
            assert_eq!(status(&api, token).await, 404, "after {kind} {name}");
        }
    }
    api.stop().await;
}

#[tokio::test]
async fn p13_revoked_tokens_are_refused_from_the_first_request_after_a_start() {
    let db = TestDb::create().await;
    let url = db.url().to_owned();
    revoke(&db, "token_id", "shop-1").await;
    let api = Api::start_on(db, &url, &[]).await;
    let claims = |jti: &str| json!({"user_id": 42, "role": "customer", "jti": jti});
    assert_eq!(status(&api, &api.keys.mint(claims("shop-1"))).await, 401);
    assert_eq!(status(&api, &api.keys.mint(claims("shop-2"))).await, 404);
    api.stop().await;
}

#[tokio::test]
async fn a_revocation_counts_until_the_token_would_have_expired() {
    let api = Api::start().await;
    let token = api
        .keys
        .mint(json!({"user_id": 42, "role": "customer", "jti": "shop-1"}));
    revoke(&api.db, "token_id", "shop-1").await;
    refused_in_time(&api, "shop-1", &token).await;
    sqlx::query("UPDATE revoked_tokens SET expires_at = UTC_TIMESTAMP(6) - INTERVAL 1 SECOND")
        .execute(&api.db.pool)
        .await
        .expect("update");
    api.until_metric("auth_revoked_tokens 0").await;
    assert_eq!(status(&api, &token).await, 404);
    api.stop().await;
}

#[tokio::test]
async fn p13_all_tokens_are_refused_while_the_revocations_are_unknown() {
    let logs = Logs::capture();
    let db = TestDb::create().await;
    let (proxy, url) = MysqlProxy::before(db.url()).await;
    let started = unix_secs();
    let api = Api::start_on(db, &url, &["--revocations-max-age-secs", "5"]).await;
    let tokens = Format::ALL.map(|format| api.token_of(format, 8, "auditor"));
    // An auditor may do nothing here, so no response needs MySQL: 403 means that the token is accepted.
    for token in &tokens {
        assert_eq!(status_of_list(&api, token).await, 403);
    }
    let read_at = api.metric("auth_revocations_read_timestamp_seconds").await;
    assert!((started..=unix_secs()).contains(&read_at), "{read_at}");
    proxy.go_away();
    let away_since = Instant::now();
    for token in &tokens {
        until(&api, token, 503, away_since).await;
        let (_, ready) = api.ops("/readyz?verbose").await;
        let age = ready.lines().find_map(|line| {
            let age = line.strip_prefix("over revocations_age_seconds ")?;
            age.strip_suffix(", limit 5")?.parse::<u64>().ok()
        });
        assert!(
            age.is_some_and(|age| age >= 5),
            "a short outage must not matter: {ready}"
        );
        api.get("/returns", token)
            .await
            .problem(503, "revocations-unknown");
        // A bad token is still a bad token.
        assert_eq!(status_of_list(&api, &format!("{token}x")).await, 401);
    }
    proxy.come_back();
    for token in &tokens {
        until(&api, token, 403, Instant::now()).await;
    }
    let refused = r#"auth_refusals_total{reason="revocations_unknown"}"#;
    assert!(api.metric(refused).await > 0.0);
    api.stop().await;
    // The outage fails every request. It has lines of its own.
    let lines = logs.lines_with("revocations_unknown");
    assert!(lines.is_empty(), "{lines:?}");
    let outage = logs.lines_with("reading the list of revoked tokens fails");
    assert_eq!(outage.len(), 1, "{outage:?}");
}

fn unix_secs() -> f64 {
    UNIX_EPOCH.elapsed().expect("after 1970").as_secs_f64()
}

async fn status_of_list(api: &Api, token: &str) -> u16 {
    api.get("/returns", token).await.status
}

async fn until(api: &Api, token: &str, expected: u16, since: Instant) {
    loop {
        let status = status_of_list(api, token).await;
        if status == expected {
            return;
        }
        assert!([403, 503].contains(&status), "{status}");
        assert!(
            since.elapsed() < Duration::from_secs(15),
            "still {status}, not {expected}"
        );
        pause().await;
    }
}

#[tokio::test]
async fn an_unknown_kind_of_revocation_refuses_all_tokens() {
    let api = Api::start_with(&["--revocations-max-age-secs", "5"]).await;
    let token = api.token_of(Format::Biscuit, 8, "auditor");
    until(&api, &token, 403, Instant::now()).await;
    revoke(&api.db, "user_not_before", "42").await;
    until(&api, &token, 503, Instant::now()).await;
    api.stop().await;
}
