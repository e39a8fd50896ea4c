//! Every kind of request to the api, and its log lines and responses.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::program::run;
use e2e::secrets::{Audience, assert_none_in};
use e2e::system::CUSTOMER;
use e2e::until;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::domain::ids::CustomerId;

use super::fixture::{Fixture, token};
use super::tokens::{Shop, useless};
use super::{canary, pages_hold_none, personal, secret};

const DEADLINE: Duration = Duration::from_secs(30);

/// A client of the api.
struct Caller {
    api: SocketAddr,
    http: reqwest::Client,
    headers: Vec<(&'static str, String)>,
    /// Whether the responses may contain personal data, because it is the caller's own.
    audience: Audience,
}

impl Caller {
    fn stranger(api: SocketAddr) -> Self {
        Self {
            api,
            http: reqwest::Client::new(),
            headers: Vec::new(),
            audience: Audience::Anyone,
        }
    }

    fn with(&self, name: &'static str, value: impl Into<String>) -> Self {
        let mut headers = self.headers.clone();
        headers.push((name, value.into()));
        Self {
            http: self.http.clone(),
            headers,
            ..*self
        }
    }

    fn bearer(&self, token: &str) -> Self {
        self.with("authorization", format!("Bearer {token}"))
    }

    fn reading_their_own(&self) -> Self {
        Self {
            audience: Audience::Owner,
            http: self.http.clone(),
            headers: self.headers.clone(),
            ..*self
        }
    }

    /// Sends a request, and searches status line, headers and body of the response.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        expected: u16,
    ) -> anyhow::Result<Value> {
        let url = format!("http://{}{path}", self.api);
        let mut request = self.http.request(method.clone(), url);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status(), format!("{:?}", response.headers()));
        let text = response.text().await?;
        let what = format!("the answer {status} to {method}");
        assert_none_in(&what, &headers, Audience::Anyone);
        assert_none_in(&what, &text, self.audience);
        ensure!(status == StatusCode::from_u16(expected)?, "{what}: {text}");
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    async fn get(&self, path: &str, expected: u16) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, None, expected).await
    }

    async fn post(&self, body: impl Into<String>, expected: u16) -> anyhow::Result<Value> {
        self.ask(Method::POST, "/returns", Some(body.into()), expected)
            .await
    }
}

fn filing(order: i64, reason: &str) -> String {
    json!({ "order_id": order, "reason": reason }).to_string()
}

#[tokio::test]
async fn p13_no_request_makes_the_api_tell_a_secret() -> anyhow::Result<()> {
    let fixture = Fixture::create().await?;
    let system = &fixture.system;
    system.db.seed_orders(1, 5, CUSTOMER).await;
    system.db.seed_orders(100, 1, CustomerId(43)).await;
    let api = system.start("returns-api").await?;
    let stranger = Caller::stranger(api.api_address()?);
    let (id, shop) = (personal("jti"), Shop(&fixture.shop_secret));
    let shop_token = shop.token(&id)?;
    let biscuit = token(system, "biscuit", "customer").await?;
    let good = [
        token(system, "jwt", "customer").await?,
        biscuit.clone(),
        shop_token.clone(),
    ];
    for (order, token) in (1..).zip(&good) {
        use_well(&stranger, order, token).await?;
    }
    misuse(&stranger, &good[0]).await?;
    let staff = [
        token(system, "jwt", "admin").await?,
        token(system, "jwt", "auditor").await?,
    ];
    as_staff(&stranger, &staff).await?;
    refused(&stranger, &good[0], shop.bad(&biscuit)?).await?;
    let useless = stranger.bearer(&useless(&biscuit)?);
    useless.get("/returns/1", 403).await?;
    useless.post(filing(5, "does not fit"), 403).await?;
    revoked(&fixture, &stranger, &id, &shop_token).await?;
    broken_keys(&fixture, &api, &stranger.bearer(&good[0])).await?;
    without_mysql(&fixture, &api, &stranger.bearer(&good[0])).await?;
    pages_hold_none(&[&api]).await?;
    api.stop(DEADLINE).await
}

/// Files and reads: only the owner sees the reason.
async fn use_well(stranger: &Caller, order: i64, token: &str) -> anyhow::Result<()> {
    let reason = personal("reason");
    let caller = stranger.bearer(token);
    let filed = caller.post(filing(order, &reason), 201).await?;
    let id = filed["return_id"].as_i64().context("an id")?;
    let path = format!("/returns/{id}");
    let read = caller.reading_their_own().get(&path, 200).await?;
    ensure!(read["reason"] == reason.as_str(), "{read}");
    caller.post(filing(order, &reason), 409).await?;
    Ok(())
}

/// Bad requests with valid tokens.
async fn misuse(stranger: &Caller, token: &str) -> anyhow::Result<()> {
    let caller = stranger.bearer(token);
    let word = personal("bad-request");
    caller.get(&format!("/returns/{word}"), 404).await?;
    caller.get(&format!("/{word}"), 404).await?;
    caller.get("/returns/999999", 404).await?;
    caller.get(&format!("/returns?status={word}"), 422).await?;
    caller.ask(Method::DELETE, "/returns/1", None, 405).await?;
    caller.post(filing(100, &word), 400).await?;
    caller.post(format!(r#"{{"reason": "{word}""#), 400).await?;
    caller.post(format!("{word} is no JSON"), 400).await?;
    caller.post(filing(4, &word.repeat(400)), 413).await?;
    caller.post(filing(4, &word.repeat(30)), 422).await?;
    let own = caller.reading_their_own();
    // These responses repeat what the caller has sent.
    for body in [
        json!({ "order_id": word, "reason": word }),
        json!({ "order_id": 4, "reason": word, (&*word): word }),
        json!({ "order_id": 4, "reason": word, "reason_code": word }),
        json!({ "order_id": 4, "reason": [word] }),
    ] {
        own.post(body.to_string(), 422).await?;
    }
    let keyed = caller.with("idempotency-key", &*word);
    keyed.post(filing(4, &word), 201).await?;
    keyed.post(filing(5, &word), 422).await?;
    let traced = caller.with("cookie", secret("cookie"));
    let traced = traced.with("proxy-authorization", secret("proxy"));
    let traced = traced.reading_their_own();
    traced.get("/returns/1", 200).await.map(|_| ())
}

async fn as_staff(stranger: &Caller, tokens: &[String; 2]) -> anyhow::Result<()> {
    let [admin, auditor] = tokens;
    let admin = stranger.bearer(admin).reading_their_own();
    admin.get("/returns?limit=2", 200).await?;
    admin.get("/returns/1", 200).await?;
    admin.post(filing(5, &personal("reason")), 403).await?;
    stranger.bearer(auditor).get("/returns/1", 403).await?;
    Ok(())
}

/// Requests without a valid token.
async fn refused(stranger: &Caller, good: &str, bad: Vec<String>) -> anyhow::Result<()> {
    stranger.get("/returns/1", 401).await?;
    stranger
        .get(&format!("/returns/1?access_token={good}"), 401)
        .await?;
    let twice = stranger.bearer(good).bearer(good);
    twice.get("/returns/1", 401).await?;
    for value in [
        format!("Basic {}", secret("basic")),
        secret("scheme"),
        format!("Bearer {} {}", secret("bearer"), secret("bearer")),
        format!("Bearer {}{}", "y".repeat(5_000), secret("long")),
    ] {
        let caller = stranger.with("authorization", value);
        caller.get("/returns/1", 401).await?;
    }
    let huge = canary("huge").repeat(2_000);
    stranger.bearer(&huge).get("/returns/1", 431).await?;
    for (number, token) in bad.iter().enumerate() {
        let caller = stranger.bearer(token);
        for answer in [
            caller.get("/returns/1", 401).await,
            caller.post(filing(5, "does not fit"), 401).await,
        ] {
            answer.with_context(|| format!("bad token {number}"))?;
        }
    }
    Ok(())
}

async fn revoked(
    fixture: &Fixture,
    stranger: &Caller,
    id: &str,
    token: &str,
) -> anyhow::Result<()> {
    let caller = stranger.bearer(token);
    let own = caller.reading_their_own();
    own.get("/returns/1", 200).await?;
    let revoke = [
        "token",
        "revoke",
        "--token-id",
        id,
        "--by",
        "j.doe",
        "--reason",
        "lost",
    ];
    run("returnsctl", &revoke, &fixture.system.env).await?;
    until("it is refused", DEADLINE, async || {
        Ok(own.get("/returns/1", 401).await.is_ok())
    })
    .await
}

/// The key file is damaged while the api runs, and repaired.
async fn broken_keys(
    fixture: &Fixture,
    api: &e2e::program::Program,
    caller: &Caller,
) -> anyhow::Result<()> {
    let path = &fixture.system.env["AUTH_KEYS_FILE"];
    let good = fs::read_to_string(path)?;
    let k = format!("{} is no base64", secret("k"));
    for (times, text) in (1..).zip([
        secret("no-json"),
        json!({ "keys": [{ "kty": "oct", "kid": secret("kid"), "k": k }] }).to_string(),
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": secret("kid"), "x": k }] })
            .to_string(),
    ]) {
        fs::rename(fixture.file("keys", &text)?, path)?;
        until("the broken file was read", DEADLINE, async || {
            let failed = r#"auth_key_reloads_total{result="failed"}"#;
            Ok(api.metric_if_any(failed).await?.unwrap_or(0) >= times)
        })
        .await?;
    }
    fs::rename(fixture.file("keys", &good)?, path)?;
    caller.reading_their_own().get("/returns/1", 200).await?;
    Ok(())
}

async fn without_mysql(
    fixture: &Fixture,
    api: &e2e::program::Program,
    caller: &Caller,
) -> anyhow::Result<()> {
    fixture.mysql.go_away();
    let own = caller.reading_their_own();
    own.get("/returns/1", 503).await?;
    own.post(filing(5, &personal("reason")), 503).await?;
    api.ops_page("/readyz?verbose").await?;
    fixture.mysql.come_back();
    until("it is back", DEADLINE, async || {
        Ok(own.get("/returns/1", 200).await.is_ok())
    })
    .await
}
