//! What a proxy in front of the api may say about a request, and links that work behind one.

use reqwest::header::HeaderMap;
use serde_json::json;

use crate::harness::{Answer, Api, CUSTOMER};
use crate::logs::Logs;
use crate::tokens::{Format, Issuer, READ_ONLY, attenuate};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// `POST /returns` with these headers.
async fn file(api: &Api, order: i64, headers: &[(&str, &str)]) -> Answer {
    let mut request = api
        .http
        .post(api.url("/returns"))
        .bearer_auth(api.customer_token())
        .json(&json!({"order_id": order, "reason": "too small"}));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::read(request.send().await.expect("a response")).await
}

/// The request id and the trace in the audit row of this return.
async fn stored(api: &Api, id: i64) -> (String, String) {
    sqlx::query_as("SELECT request_id, trace_id FROM return_events WHERE return_id = ?")
        .bind(id)
        .fetch_one(&api.db.pool)
        .await
        .expect("one event")
}

#[tokio::test]
async fn only_a_trusted_proxy_names_a_request_and_its_trace() {
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    for (flags, is_trusted) in [
        (&[][..], false),
        (&["--trusted-proxies", "127.0.0.0/8"], true),
    ] {
        let api = Api::start_with(flags).await;
        api.db.seed_orders(1, 2, CUSTOMER).await;
        let named = [("x-request-id", "req-1"), ("traceparent", &parent)];
        let answer = file(&api, 1, &named).await;
        let (request_id, trace) = stored(&api, answer.return_id()).await;
        assert_eq!(answer.header("x-request-id"), Some(request_id.as_str()));
        assert_eq!(
            (request_id == "req-1", trace == TRACE),
            (is_trusted, is_trusted)
        );
        // Not even a trusted proxy writes a formula into the audit trail.
        let evil = [("x-request-id", "x;=WEBSERVICE(A1);")];
        let (request_id, _) = stored(&api, file(&api, 2, &evil).await.return_id()).await;
        assert!(request_id.parse::<uuid::Uuid>().is_ok(), "{request_id}");
        api.stop().await;
    }
}

#[tokio::test]
async fn a_proxy_that_is_missing_in_the_settings_is_named_once() {
    let logs = Logs::capture();
    let api = Api::start().await;
    for _ in 0..20 {
        let request = api.http.get(api.url("/returns/1"));
        let request = request.header("x-forwarded-for", "192.0.2.1");
        assert_eq!(request.send().await.expect("a response").status(), 401);
    }
    api.stop().await;
    let lines = logs.lines_with("X-Forwarded-For");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].contains("WARN") && lines[0].contains("127.0.0.1"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_refusal_is_logged_with_its_reason_address_and_route() {
    let logs = Logs::capture();
    let flags = ["--trusted-proxies", "127.0.0.0/8"];
    let api = Api::start_with(&flags).await;
    let customer = api.customer_token();
    let bad = Issuer::new(9).mint_as(Format::Jwt, json!({"user_id": 42, "role": "customer"}));
    for (path, token) in [("/returns/77/events", &bad), ("/events?limit=5", &customer)] {
        let request = api.http.get(api.url(path)).bearer_auth(token);
        let request = request.header("x-forwarded-for", "192.0.2.7");
        let status = request.send().await.expect("a response").status().as_u16();
        assert!([401, 403].contains(&status), "{status}");
    }
    let narrowed = attenuate(&api.token_of(Format::Biscuit, 42, "customer"), READ_ONLY);
    api.get("/events", &narrowed)
        .await
        .problem(403, "forbidden");
    api.stop().await;
    let lines = logs.lines_with("a request was refused");
    for (line, parts) in lines.iter().zip([
        ["code=\"unknown_key\"", "/returns/{id}/events", "192.0.2.7"],
        ["code=\"forbidden\"", "/events", "192.0.2.7"],
        ["code=\"forbidden\"", "/events", "127.0.0.1"],
    ]) {
        for part in parts {
            assert!(line.contains(part), "{part} is missing in {line}");
        }
        assert!(
            !line.contains(&customer) && !line.contains("limit=5"),
            "{line}"
        );
    }
    assert_eq!(lines.len(), 3, "{lines:?}");
}

/// Follows no redirects.
async fn location_of(api: &Api, path: &str) -> HeaderMap {
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let request = http.build().expect("a client").get(api.url(path));
    request.send().await.expect("a response").headers().clone()
}

#[tokio::test]
async fn links_begin_with_the_public_address() {
    for (flags, base) in [
        (&[][..], ""),
        (
            &["--public-base-url", "https://shop.example/returns-api/"],
            "https://shop.example/returns-api",
        ),
    ] {
        let api = Api::start_with(flags).await;
        api.db.seed_orders(1, 1, CUSTOMER).await;
        let answer = file(&api, 1, &[("idempotency-key", "k")]).await;
        let location = format!("{base}/returns/{}", answer.return_id());
        assert_eq!(answer.header("location"), Some(location.as_str()));
        let replayed = file(&api, 1, &[("idempotency-key", "k")]).await;
        assert_eq!(replayed.header("location"), Some(location.as_str()));
        let problem = api.get("/returns/99", &api.customer_token()).await.json();
        assert_eq!(problem["type"], format!("{base}/problems/not-found"));
        let docs = location_of(&api, "/docs").await;
        assert_eq!(docs["location"], format!("{base}/docs/index.html"));
        api.stop().await;
    }
}
