//! The HTTP gateway over a socket, against a provider with scripted responses.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use refund_consumer::gateway::http::Http;
use refund_consumer::gateway::{
    Answer, CallFailed, CallKind, ProviderRefund, RefundGateway, RefundRequest,
};
use serde_json::{Value, json};
use shared::domain::money::{Currency, Money};
use shared::domain::refund::ProviderKey;
use tokio::net::TcpListener;

use crate::harness::provider::{Provider, Reply, Seen, gateway, http, refund, said};
use crate::harness::{World, until, until_true};

fn request() -> RefundRequest {
    RefundRequest {
        key: key(),
        amount: Money::new(
            "49.90".parse().expect("a decimal"),
            Currency::parse("EUR").expect("a code"),
        ),
        sent_before: 0,
    }
}

fn key() -> ProviderKey {
    ProviderKey("refund-k-1".to_owned())
}

async fn submit(gateway: &Http) -> Result<ProviderRefund, CallFailed> {
    gateway.submit(&request()).await
}

/// Whether a call may be made without waiting.
async fn is_ready(gateway: &Http) -> bool {
    let at_once = tokio::time::timeout(Duration::ZERO, gateway.ready(CallKind::Submit));
    at_once.await.is_ok()
}

#[tokio::test]
async fn the_key_is_a_header_only_for_a_provider_that_honors_it() {
    let provider = Provider::start(|seen| said(seen, &refund("refund-k-1"))).await;
    for keys in [true, false] {
        let gateway = gateway(&provider.url, |args| args.gateway_idempotency_keys = keys);
        let answer = submit(&gateway).await.expect("an answer");
        assert_eq!(answer.gateway_ref, "r1");
        assert_eq!(gateway.capabilities().native_idempotency, keys);
    }
    let seen = provider.seen();
    assert_eq!(seen[0].header("idempotency-key"), Some("refund-k-1"));
    assert_eq!(seen[1].header("idempotency-key"), None);
    for seen in seen {
        assert_eq!(seen.line, "POST /refunds");
        let body: Value = serde_json::from_str(&seen.body).expect("JSON");
        assert_eq!(
            body,
            json!({"reference": "refund-k-1", "amount": "49.90", "currency": "EUR"})
        );
    }
}

/// Pending first, so that all three kinds of call are made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_goes_with_every_call() {
    for token in [Some("s3cret"), None] {
        let reference = Mutex::new(String::new());
        let provider = Provider::start(move |seen| {
            let mut reference = reference.lock().expect("not poisoned");
            let is_new = seen.line.starts_with("POST");
            if is_new {
                *reference = seen.reference();
            }
            let mut refund = refund(&reference);
            if is_new {
                refund["status"] = json!("pending");
            }
            said(seen, &refund)
        })
        .await;
        let gateway = || {
            gateway(&provider.url, |args| {
                args.gateway_token = token.map(Into::into);
            })
        };
        let world = World::new().await;
        let filed = world.file(1).await;
        let running = world.start(gateway(), &["--initiated-grace-secs=0"]).await;
        world.wait_for(filed.return_id, "refunded").await;
        running.stop().await;
        let key = ProviderKey(format!("refund-{}-1", filed.event_id));
        let found = gateway().find(&key).await.expect("an answer");
        assert_eq!(found.expect("a refund").gateway_ref, "r1");

        let seen = provider.seen();
        let lines: Vec<&str> = seen.iter().map(|seen| seen.line.as_str()).collect();
        let found = format!("GET /refunds?reference={key}");
        assert_eq!(lines, ["POST /refunds", "GET /refunds/r1", &found]);
        let expected = token.map(|token| format!("Bearer {token}"));
        for seen in &seen {
            assert_eq!(seen.header("authorization"), expected.as_deref());
        }
    }
}

#[tokio::test]
async fn p5_a_redirect_is_not_followed() {
    for status in [
        "301 Moved Permanently",
        "302 Found",
        "303 See Other",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        let elsewhere = |_: &Seen| Reply::Say(http(status, "location: /elsewhere\r\n", ""));
        let provider = Provider::start(elsewhere).await;
        let gateway = provider.gateway();
        let redirected = CallFailed::NotUnderstood(Answer {
            code: "redirected",
            words: status[..3].to_owned(),
        });
        assert_eq!(submit(&gateway).await, Err(redirected.clone()), "{status}");
        assert_eq!(gateway.find(&key()).await, Err(redirected), "{status}");
        assert_eq!(provider.seen().len(), 2, "{status}");
    }
}

#[tokio::test]
async fn an_answer_above_64_kib_is_none() {
    const MOST: usize = 64 * 1024;
    for (length, fits) in [(MOST, true), (MOST + 1, false), (100 * MOST, false)] {
        let provider = Provider::start(move |_| {
            let mut body = refund("refund-k-1").to_string();
            body.push_str(&" ".repeat(length - body.len()));
            Reply::Say(http("201 Created", "", &body))
        })
        .await;
        let answer = submit(&provider.gateway()).await;
        if fits {
            assert_eq!(answer.expect("an answer").gateway_ref, "r1");
        } else {
            let failed = answer.expect_err("too large");
            assert_eq!(failed.as_str(), "answer_too_large");
        }
    }
}

#[tokio::test]
async fn p5_only_a_call_that_found_no_connection_was_certainly_not_sent() {
    let closed_port = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        format!("http://{}", listener.local_addr().expect("bound"))
    };
    let refused = submit(&gateway(&closed_port, |_| {})).await;
    assert_eq!(refused, Err(CallFailed::NotSent("connect_failed")));

    // Silent from the start, or in the middle of the response: the timeout is for the whole call.
    let half = http("200 OK", "", &refund("refund-k-1").to_string());
    for begun in [String::new(), half[..half.len() - 9].to_owned()] {
        let provider = Provider::start(move |_| Reply::Hang(begun.clone())).await;
        let hasty = gateway(&provider.url, |args| args.gateway_call_timeout_ms = 2_000);
        assert_eq!(submit(&hasty).await, Err(CallFailed::Unknown("timeout")));
        assert_eq!(provider.seen().len(), 1, "not repeated");
    }
    let half = half[..half.len() - 9].to_owned();
    let provider = Provider::start(move |_| Reply::Say(half.clone())).await;
    let lost = Err(CallFailed::Unknown("connection_lost"));
    assert_eq!(submit(&provider.gateway()).await, lost);
    assert_eq!(provider.seen().len(), 1, "not repeated");
}

#[tokio::test]
async fn a_circuit_opens_after_failures_in_a_row_and_closes_with_the_first_answer() {
    let answers = Arc::new(Mutex::new(false));
    let is_well = Arc::clone(&answers);
    let provider = Provider::start(move |seen| {
        if *is_well.lock().expect("not poisoned") {
            said(seen, &refund("refund-k-1"))
        } else {
            Reply::Say(http("503 Service Unavailable", "", ""))
        }
    })
    .await;
    let gateway = gateway(&provider.url, |args| {
        args.gateway_breaker_failures = 3;
        args.gateway_breaker_pause_ms = 1_500;
    });
    for _ in 0..3 {
        assert!(is_ready(&gateway).await);
        let failed = submit(&gateway).await;
        assert_eq!(failed, Err(CallFailed::Unknown("server_error")));
    }
    assert!(!is_ready(&gateway).await, "open");
    gateway.ready(CallKind::Submit).await;
    submit(&gateway).await.expect_err("still ill");
    assert!(!is_ready(&gateway).await, "still open");
    *answers.lock().expect("not poisoned") = true;
    gateway.ready(CallKind::Submit).await;
    submit(&gateway).await.expect("well again");
    for _ in 0..10 {
        assert!(is_ready(&gateway).await, "closed");
    }
}

/// The consumer compares amount and currency, so this test runs a consumer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_an_answer_about_something_else_pays_nothing_and_waits_for_a_person() {
    for (field, other, reason) in [
        ("reference", "refund-other-1", "mismatched_reference"),
        ("currency", "USD", "mismatched_amount"),
        ("amount", "49.9100", "mismatched_amount"),
    ] {
        let provider = Provider::start(move |seen| {
            let mut refund = refund(&seen.reference());
            refund[field] = json!(other);
            said(seen, &refund)
        })
        .await;
        let world = World::new().await;
        let filed = world.file(1).await;
        let running = world
            .start(provider.gateway(), &["--initiated-grace-secs=0"])
            .await;
        let waits = until("it waits for a person", || async {
            let parked = "SELECT last_error FROM refunds WHERE state = 'parked'";
            let found: Option<Option<String>> = sqlx::query_scalar(parked)
                .fetch_optional(&world.db.pool)
                .await
                .expect("attempts");
            found.flatten()
        })
        .await;
        assert_eq!(waits, reason, "{field}");
        assert_eq!(world.status(filed.return_id).await.0, "refund_pending");
        assert_eq!(world.refunded_amount(filed.order_id).await, "0.0000");
        let seen = provider.seen();
        let asked = seen.iter().filter(|seen| seen.line.starts_with("POST"));
        assert_eq!(asked.count(), 1, "{field}: looked up, not asked again");
        running.stop().await;
    }
}

/// One call at a time: the response to the first asks for a pause, and no other call is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_429_with_retry_after_stops_all_calls() {
    let provider = Provider::start(|_| {
        let headers = "retry-after: 3600\r\n";
        Reply::Say(http("429 Too Many Requests", headers, ""))
    })
    .await;
    let world = World::new().await;
    world.file_all(1..=5, false).await;
    let flags = [
        "--initiated-grace-secs=0",
        "--reconcile-interval-ms=60000",
        "--gateway-parallel-calls=1",
        "--call-deadline-ms=12000",
    ];
    let running = world.start(provider.gateway(), &flags).await;
    // The second waits until its deadline, and the others wait behind it.
    until_true("the others have given up", || {
        running.metrics.work.expired_before_call.get() == 3
    })
    .await;
    assert_eq!(provider.seen().len(), 1);
    let calls = |result: &str| {
        let calls = &running.metrics.gateway.calls;
        calls.with_label_values(&[result]).get()
    };
    assert_eq!(calls("rate_limited"), 1);
    let unsent =
        "SELECT COUNT(*) FROM refunds WHERE last_error IN ('rate_limited', 'gateway_paused')";
    until("two have recorded the reason", || async {
        (world.count(unsent).await == 2).then_some(())
    })
    .await;
    running.stop().await;
}

/// Without access a whole backlog would fail. A single rejected request does not open the circuit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_calls_that_are_refused_access_open_the_circuit() {
    for (status, closed) in [
        (401, true),
        (403, true),
        (500, true),
        (400, false),
        (404, false),
    ] {
        let provider = Provider::start(move |_| {
            Reply::Say(format!(
                "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            ))
        })
        .await;
        let gateway = gateway(&provider.url, |args| args.gateway_breaker_failures = 2);
        for calls in 1..=2 {
            assert!(!gateway.is_closed(), "{status} {calls}");
            gateway.submit(&request()).await.expect_err("refused");
        }
        assert_eq!(gateway.is_closed(), closed, "{status}");
    }
}

/// The due probe is admitted, and lets messages in; a response closes the circuit again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_a_due_probe_is_admitted() {
    let provider = Provider::start(|_| Reply::Say(String::new())).await;
    let gateway = gateway(&provider.url, |args| {
        args.gateway_breaker_failures = 1;
        args.gateway_breaker_pause_ms = 2_000;
    });
    gateway.submit(&request()).await.expect_err("no answer");
    assert!(gateway.is_closed());
    until_true("a probe is due", || !gateway.is_closed()).await;
    gateway.ready(CallKind::Submit).await;
    assert!(gateway.is_closed(), "one at a time");
}
