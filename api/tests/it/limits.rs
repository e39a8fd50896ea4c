//! Rate limits, CORS, and: the body of an unauthorized request is not read.

use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;

use crate::harness::{Answer, Api, CUSTOMER};
use crate::tokens::Format;
use crate::wire::{Wire, statuses};

async fn ask(api: &Api, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let method = method.parse().expect("a method");
    let mut request = api.http.request(method, api.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::read(request.send().await.expect("a response")).await
}

/// The statuses of five requests at once with these headers.
async fn five(api: &Api, headers: &str) -> Vec<u16> {
    let one = format!("GET /returns/1 HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    let last = one.replace("Host: x", "Host: x\r\nConnection: close");
    let mut wire = Wire::connect(api.address).await;
    wire.send((one.repeat(4) + &last).as_bytes()).await;
    let statuses = statuses(&wire.until_closed().await);
    assert_eq!(statuses.len(), 5, "{statuses:?}");
    statuses
}

/// How many of the five were within the rate: they get 401, because they have no token.
fn admitted(statuses: &[u16]) -> usize {
    let known = statuses.iter().all(|status| [401, 429].contains(status));
    assert!(known, "{statuses:?}");
    statuses.iter().filter(|status| **status == 401).count()
}

/// How many requests of one client may have been admitted since then: two at once, and one more per second.
fn allowance(begun: Instant) -> usize {
    2 + usize::try_from(begun.elapsed().as_secs()).expect("few")
}

#[tokio::test]
async fn p12_the_rate_limit_of_an_address_comes_before_any_other_check() {
    let api = Api::start_with(&["--rate-per-address", "1"]).await;
    let begun = Instant::now();
    let statuses = five(&api, "").await;
    assert_eq!(statuses[..2], [401, 401]);
    let mut admitted = admitted(&statuses);
    assert!(admitted <= allowance(begun), "{statuses:?}");
    // Also invalid requests, and requests with forged headers.
    let forged = [("x-forwarded-for", "192.0.2.1")];
    let refused = loop {
        let answer = ask(&api, "GET", "/no/such/path", &forged).await;
        if answer.status != 404 {
            break answer;
        }
        admitted += 1;
        assert!(admitted <= allowance(begun), "{admitted}");
    };
    refused.problem(429, "rate-limited");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("ratelimit"), None);
    api.stop().await;
}

#[tokio::test]
async fn p12_a_trusted_proxy_forwards_the_address_for_the_rate_limit() {
    let api = Api::start_with(&[
        "--rate-per-address",
        "1",
        "--trusted-proxies",
        "127.0.0.0/8,10.0.0.0/8",
    ])
    .await;
    for (client, same) in [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.2", "8.8.4.4, 192.0.2.2"),
        ("8.8.8.8, 192.0.2.3, 10.0.0.1", "192.0.2.3"),
    ] {
        let headers = |named: &str| format!("X-Forwarded-For: {named}\r\n");
        let begun = Instant::now();
        let first = five(&api, &headers(client)).await;
        assert_eq!(first[..2], [401, 401], "{client}");
        // Another client would be admitted twice.
        let again = five(&api, &headers(same)).await;
        let both = admitted(&first) + admitted(&again);
        assert!(both <= allowance(begun), "{same}: {first:?} {again:?}");
    }
    api.stop().await;
}

/// The responses to a burst of `user`, of the next user, and without a token.
async fn burst_of(api: &Api, user: i64) -> String {
    let authorization = |format, user| {
        let token = api.token_of(format, user, "customer");
        format!("Authorization: Bearer {token}\r\n")
    };
    let jwt = authorization(Format::Jwt, user);
    // Refused because of the role, so that no request waits for the database.
    let list = |headers: &str| format!("GET /events HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    let biscuit = authorization(Format::Biscuit, user);
    let other = authorization(Format::Jwt, user + 1);
    // Another token of the same user is the same caller; another user is not.
    // Unauthenticated callers get no rate headers.
    let requests = [&jwt, &biscuit, &jwt, &other, ""].map(list).concat();
    let file = format!(
        "POST /returns HTTP/1.1\r\nHost: x\r\n{jwt}Content-Type: application/json\r\nContent-Length: 100\r\n\
         Expect: 100-continue\r\n\r\n"
    );
    let mut wire = Wire::connect(api.address).await;
    wire.send((requests + &file).as_bytes()).await;
    wire.until_closed().await
}

#[tokio::test]
async fn p12_a_caller_has_a_rate_limit_and_sees_it() {
    let api = Api::start_with(&["--rate-per-caller", "1"]).await;
    let mut users = (CUSTOMER.0..).step_by(2).take(20);
    let answers = loop {
        let user = users.next().expect("a burst that is over within a second");
        let begun = Instant::now();
        let answers = burst_of(&api, user).await;
        // After a second, one more request is allowed and the headers show more left: try again with other users.
        if begun.elapsed() < Duration::from_secs(1) {
            break answers;
        }
    };
    // The body of the last request is not read.
    assert_eq!(
        statuses(&answers),
        [403, 403, 429, 403, 401, 429],
        "{answers}"
    );
    let rate_headers: Vec<&str> = answers
        .lines()
        .filter(|line| line.starts_with("ratelimit"))
        .collect();
    let policy = r#"ratelimit-policy: "caller";q=2;w=2"#;
    let left = |left, reset| format!("ratelimit: \"caller\";r={left};t={reset}");
    let (one, none) = (left(1, 1), left(0, 2));
    assert_eq!(
        rate_headers,
        [
            policy, &one, policy, &none, policy, &none, policy, &one, policy, &none
        ]
    );
    assert_eq!(answers.matches("retry-after: 1\r\n").count(), 2);
    api.stop().await;
}

#[tokio::test]
async fn a_body_is_read_only_from_authorized_callers() {
    let api = Api::start().await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    let body = r#"{"order_id":1,"reason":"x"}"#;
    let auditor = api.token_of(Format::Jwt, 8, "auditor");
    let auditor = format!("Authorization: Bearer {auditor}\r\n");
    let customer = format!("Authorization: Bearer {}\r\n", api.customer_token());
    let (small, large) = (
        format!("Content-Length: {}\r\n", body.len()),
        "Content-Length: 16385\r\n",
    );
    for (name, headers, answers) in [
        ("no token", small.clone(), &[401][..]),
        (
            "a role that does not file",
            format!("{auditor}{small}"),
            &[403],
        ),
        (
            "too long by its own word",
            format!("{customer}{large}"),
            &[413],
        ),
        ("who may", format!("{customer}{small}"), &[100, 201]),
    ] {
        let mut wire = Wire::connect(api.address).await;
        let head = format!(
            "POST /returns HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Type: application/json\r\n{headers}\r\n"
        );
        wire.send(head.as_bytes()).await;
        let mut answer = wire.until("HTTP/1.1 ").await;
        if answers.contains(&100) {
            // Only now is it sent.
            wire.send(body.as_bytes()).await;
            answer += &wire.until("return_id").await;
        } else {
            answer += &wire.until_closed().await;
        }
        assert_eq!(statuses(&answer), answers, "{name}: {answer}");
    }
    api.stop().await;
}

#[tokio::test]
async fn a_compressed_body_is_refused() {
    let api = Api::start().await;
    let token = format!("Bearer {}", api.customer_token());
    for (encoding, status, code) in [
        ("gzip", 415, "unsupported-content-encoding"),
        ("identity, gzip", 415, "unsupported-content-encoding"),
        ("Identity", 400, "bad-request"),
    ] {
        let headers = [
            ("authorization", token.as_str()),
            ("content-type", "application/json"),
            ("content-encoding", encoding),
        ];
        let answer = ask(&api, "POST", "/returns", &headers).await;
        answer.problem(status, code);
    }
    api.stop().await;
}

#[tokio::test]
async fn every_response_has_the_security_headers() {
    let api = Api::start().await;
    let token = api.admin_token();
    let page = api.get("/returns", &token).await;
    assert_eq!(page.status, 200);
    for answer in [
        page,
        api.get("/no/such/path", &token).await,
        ask(&api, "GET", "/returns/1", &[]).await,
        ask(&api, "TRACE", "/returns", &[]).await,
    ] {
        for (name, value) in [
            ("x-content-type-options", Some("nosniff")),
            ("cache-control", Some("no-store")),
            ("referrer-policy", Some("no-referrer")),
            (
                "content-security-policy",
                Some("default-src 'none'; frame-ancestors 'none'"),
            ),
            ("server", None),
            ("strict-transport-security", None),
            ("access-control-allow-origin", None),
            ("vary", None),
        ] {
            assert_eq!(answer.header(name), value, "{name} of a {}", answer.status);
        }
        assert!(answer.header("date").is_some());
    }
    api.stop().await;
}

fn cors(headers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<&str> = headers
        .keys()
        .map(reqwest::header::HeaderName::as_str)
        .collect();
    names.retain(|name| name.starts_with("access-control-"));
    names.sort_unstable();
    names
}

#[tokio::test]
async fn only_pages_of_listed_origins_may_use_the_api() {
    let origins = "https://shop.example,http://localhost:3000";
    let api = Api::start_with(&["--cors-allowed-origins", origins]).await;
    let preflight = |origin: &'static str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            (
                "access-control-request-headers",
                "authorization, idempotency-key",
            ),
        ];
        let api = &api;
        async move { ask(api, "OPTIONS", "/returns", &headers).await }
    };
    let allowed = preflight("https://shop.example").await;
    assert_eq!((allowed.status, allowed.body.len()), (204, 0));
    assert_eq!(
        allowed.header("access-control-allow-methods"),
        Some("GET, HEAD, POST")
    );
    let names = allowed
        .header("access-control-allow-headers")
        .expect("names");
    for name in [
        "authorization",
        "content-type",
        "idempotency-key",
        "if-match",
        "last-event-id",
        "traceparent",
    ] {
        assert!(names.split(", ").any(|listed| listed == name), "{name}");
    }
    for origin in ["https://shop.example", "http://localhost:3000"] {
        // On any response: here an error.
        let answer = ask(&api, "GET", "/returns/1", &[("origin", origin)]).await;
        answer.problem(401, "unauthenticated");
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        assert_eq!(answer.header("vary"), Some("origin"));
        let exposed = answer
            .header("access-control-expose-headers")
            .expect("names");
        assert!(exposed.contains("retry-after") && exposed.contains("etag"));
    }
    for origin in [
        "null",
        "https://evil.example",
        "https://shop.example.evil",
        "http://shop.example",
    ] {
        let refused = preflight(origin).await;
        refused.problem(405, "method-not-allowed");
        let answer = ask(&api, "GET", "/returns/1", &[("origin", origin)]).await;
        for answer in [refused, answer] {
            assert_eq!(cors(&answer.headers), [""; 0], "{origin}");
            assert_eq!(answer.header("vary"), Some("origin"));
        }
    }
    let asked = ask(
        &api,
        "OPTIONS",
        "/returns",
        &[("origin", "https://shop.example")],
    )
    .await;
    asked.problem(405, "method-not-allowed");
    api.stop().await;
}
