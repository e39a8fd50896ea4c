//! The HTTP gateway over a socket, against a provider with scripted responses.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use refund_consumer::config::HttpArgs;
use refund_consumer::gateway::http::Http;
use refund_consumer::gateway::{
    CallFailed, GatewayName, ProviderRefund, RefundGateway, RefundRequest,
};
use serde_json::{Value, json};
use shared::domain::money::{Currency, Money};
use shared::domain::refund::ProviderKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{World, until, until_true};

/// A received request.
#[derive(Debug, Clone)]
struct Seen {
    /// Method and path with its query.
    line: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    fn reference(&self) -> String {
        let body: Option<Value> = serde_json::from_str(&self.body).ok();
        let reference = body.and_then(|body| body["reference"].as_str().map(str::to_owned));
        reference.unwrap_or_else(|| {
            let (_, reference) = self.line.split_once("reference=").expect("a reference");
            reference.to_owned()
        })
    }
}

/// The response, byte by byte; then the connection closes, unless it is to hang.
enum Reply {
    Say(String),
    /// Sends these bytes, then nothing more; the connection stays open.
    Hang(String),
}

/// A provider on a port of its own, until the test ends.
struct Provider {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Provider {
    async fn start(reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (reply, all) = (Arc::new(reply), Arc::clone(&seen));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (reply, all) = (Arc::clone(&reply), Arc::clone(&all));
                tokio::spawn(async move { serve(stream, reply.as_ref(), &all).await });
            }
        });
        Self {
            url: format!("http://{address}"),
            seen,
        }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }

    fn gateway(&self) -> Http {
        gateway(&self.url, |_| {})
    }
}

/// One request per connection.
async fn serve(
    mut stream: TcpStream,
    reply: &(dyn Fn(&Seen) -> Reply + Send + Sync),
    all: &Mutex<Vec<Seen>>,
) {
    // A client that has disconnected needs no response.
    let Some(seen) = read(&mut stream).await else {
        return;
    };
    let reply = reply(&seen);
    all.lock().expect("not poisoned").push(seen);
    let (Reply::Say(text) | Reply::Hang(text)) = &reply;
    let _ = stream.write_all(text.as_bytes()).await;
    if let Reply::Hang(_) = reply {
        std::future::pending::<()>().await;
    }
}

async fn read(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8(bytes.clone()).ok()?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let mut lines = head.lines();
        let line = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let seen = Seen {
            line,
            headers,
            body: body.to_owned(),
        };
        let length = seen.header("content-length").unwrap_or("0");
        if body.len() >= length.parse().ok()? {
            return Some(seen);
        }
    }
}

fn gateway(url: &str, change: impl Fn(&mut HttpArgs)) -> Http {
    let mut args = HttpArgs {
        gateway_name: None,
        gateway_url: None,
        gateway_token: None,
        gateway_idempotency_keys: true,
        gateway_call_timeout_ms: 10_000,
        gateway_connect_timeout_ms: 5_000,
        gateway_rate_per_sec: None,
        gateway_breaker_failures: 1_000,
        gateway_breaker_pause_ms: 600_000,
    };
    change(&mut args);
    let name = GatewayName::parse("scripted").expect("a name");
    Http::new(name, url.parse().expect("a URL"), &args, 4).expect("a client")
}

fn http(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}

fn refund(reference: &str) -> Value {
    json!({"id": "r1", "reference": reference, "status": "succeeded", "amount": "49.90", "currency": "EUR"})
}

/// As in the contract: one refund for a request, a list for a look-up.
fn said(seen: &Seen, refund: &Value) -> Reply {
    let found = json!({ "refunds": [refund] });
    let body = if seen.line.starts_with("GET /refunds?") {
        &found
    } else {
        refund
    };
    Reply::Say(http("200 OK", "", &body.to_string()))
}

fn request() -> RefundRequest {
    RefundRequest {
        key: key(),
        amount: Money::new(
            "49.90".parse().expect("a decimal"),
            Currency::parse("EUR").expect("a code"),
        ),
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
    let at_once = tokio::time::timeout(Duration::ZERO, gateway.ready());
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
        let redirected = CallFailed::Unknown("redirected");
        assert_eq!(submit(&gateway).await, Err(redirected), "{status}");
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
            assert_eq!(answer, Err(CallFailed::Unknown("answer_too_large")));
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
    gateway.ready().await;
    submit(&gateway).await.expect_err("still ill");
    assert!(!is_ready(&gateway).await, "still open");
    *answers.lock().expect("not poisoned") = true;
    gateway.ready().await;
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
        running.metrics.expired_before_call.get() == 3
    })
    .await;
    assert_eq!(provider.seen().len(), 1);
    let calls = |result: &str| {
        let calls = &running.metrics.gateway_calls;
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
    gateway.ready().await;
    assert!(gateway.is_closed(), "one at a time");
}
