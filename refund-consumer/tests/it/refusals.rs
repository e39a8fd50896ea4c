//! A provider that refuses refunds: one of them, or every one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::harness::provider::{Provider, Reply, Seen, gateway, http, refund, said};
use crate::harness::{World, until, until_true};

const WORDS: &str =
    r#"{"error":{"code":"invalid_amount","param":"amount","message":"No account of Anna M."}}"#;

/// The response to a submitted refund and to its look-up, in which state it ends, and how often it was submitted.
#[derive(Clone, Copy)]
struct Case {
    submit: &'static str,
    reason: &'static str,
    words: &'static str,
}

const CASES: [Case; 6] = [
    case("400 Bad Request", "refused", "400 invalid_amount amount"),
    case("404 Not Found", "refused", "404 invalid_amount amount"),
    case(
        "405 Method Not Allowed",
        "refused",
        "405 invalid_amount amount",
    ),
    case(
        "422 Unprocessable Entity",
        "key_reused",
        "422 invalid_amount amount",
    ),
    case(
        "409 Conflict",
        "not_understood",
        "409 invalid_amount amount",
    ),
    case("410 Gone", "not_understood", "410 invalid_amount amount"),
];

const fn case(submit: &'static str, reason: &'static str, words: &'static str) -> Case {
    Case {
        submit,
        reason,
        words,
    }
}

/// It is known under no key.
fn refuses(seen: &Seen, status: &str) -> Reply {
    if seen.line.starts_with("POST") {
        Reply::Say(http(status, "", WORDS))
    } else {
        Reply::Say(http("200 OK", "", &json!({ "refunds": [] }).to_string()))
    }
}

async fn parked(world: &World) -> (String, String) {
    until("it waits for a person", || async {
        let parked = "SELECT last_error, provider_answer FROM refunds WHERE state = 'parked'";
        let found = sqlx::query_as(parked).fetch_optional(&world.db.pool).await;
        found.expect("attempts")
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_refund_that_is_refused_each_time_is_parked_with_the_providers_words() {
    let ended = CASES.map(|case| async move {
        let provider = Provider::start(move |seen| refuses(seen, case.submit)).await;
        let world = World::new().await;
        let filed = world.file(1).await;
        let flags = ["--initiated-grace-secs=0", "--lookup-backoff-max-ms=200"];
        let running = world.start(provider.gateway(), &flags).await;
        let (reason, words) = parked(&world).await;
        assert_eq!((reason.as_str(), words.as_str()), (case.reason, case.words));
        running.stop().await;
        let sent = provider.seen();
        let sent = sent.iter().filter(|seen| seen.line.starts_with("POST"));
        assert_eq!(sent.count(), 5, "{}", case.submit);
        let events = world.audited(filed.return_id).await;
        let last = events.last().expect("an event");
        assert_eq!(last.data["reason"], case.reason);
        assert_eq!(last.data["provider_answer"], case.words);
    });
    futures_util::future::join_all(ended).await;
}

/// It may have been paid, and the provider says so in a word that is not in the contract.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_refund_of_an_unknown_status_is_looked_up_a_few_times_and_parked() {
    let provider = Provider::start(|seen| {
        let mut unknown = refund(&seen.reference());
        unknown["status"] = json!("requires_action");
        said(seen, &unknown)
    })
    .await;
    let world = World::new().await;
    world.file(1).await;
    let flags = ["--initiated-grace-secs=0", "--lookup-backoff-max-ms=200"];
    let running = world.start(provider.gateway(), &flags).await;
    let (reason, words) = parked(&world).await;
    assert_eq!(reason, "not_understood");
    assert_eq!(words, "200 status requires_action");
    running.stop().await;
    let posts = provider.seen();
    let posts = posts.iter().filter(|seen| seen.line.starts_with("POST"));
    assert_eq!(posts.count(), 1, "looked up, not sent again");
}

/// A wrong URL, or an account without the right: no single refund is to blame, and all are paid once it is mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_while_every_refund_is_refused_calls_wait_and_nothing_is_parked() {
    for status in ["404 Not Found", "422 Unprocessable Entity", "410 Gone"] {
        let is_mended = Arc::new(AtomicBool::new(false));
        let mended = Arc::clone(&is_mended);
        let provider = Provider::start(move |seen| {
            if mended.load(Ordering::SeqCst) && seen.line.starts_with("POST") {
                said(seen, &refund(&seen.reference()))
            } else {
                refuses(seen, status)
            }
        })
        .await;
        let gateway = gateway(&provider.url, |args| {
            args.gateway_breaker_failures = 12;
            args.gateway_breaker_pause_ms = 100;
        });
        let world = World::new().await;
        world.file_all(1..=8, false).await;
        let flags = ["--initiated-grace-secs=0", "--lookup-backoff-max-ms=200"];
        let running = world.start(gateway, &flags).await;
        let refuses_all = running
            .metrics
            .gateway
            .refuses_all
            .with_label_values(&["submit"]);
        until_true("it is noticed", || refuses_all.get() == 1).await;
        let posts = || {
            let seen = provider.seen();
            seen.iter()
                .filter(|one| one.line.starts_with("POST"))
                .count()
        };
        // More than five for each, had they not waited.
        until_true("it goes on for a while", || posts() > 40).await;
        let parked = "SELECT COUNT(*) FROM refunds WHERE state = 'parked'";
        assert_eq!(world.count(parked).await, 0, "{status}");
        is_mended.store(true, Ordering::SeqCst);
        let refunded = "SELECT COUNT(*) FROM returns WHERE status = 'refunded'";
        until("all are refunded", || async {
            (world.count(refunded).await == 8).then_some(())
        })
        .await;
        assert_eq!(refuses_all.get(), 0);
        running.stop().await;
    }
}

/// Access to one refund is denied, as for a customer whose account is blocked, while others are paid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_refund_that_alone_is_denied_access_is_parked_with_the_providers_words() {
    for status in ["401 Unauthorized", "403 Forbidden"] {
        let denied = Arc::new(Mutex::new(String::new()));
        let key = Arc::clone(&denied);
        let provider = Provider::start(move |seen| {
            if seen.reference() == *key.lock().expect("not poisoned") {
                refuses(seen, status)
            } else if seen.line.starts_with("POST") {
                said(seen, &refund(&seen.reference()))
            } else {
                Reply::Say(http("200 OK", "", &json!({ "refunds": [] }).to_string()))
            }
        })
        .await;
        let world = World::new().await;
        let filed = world.file(1).await;
        *denied.lock().expect("not poisoned") = format!("refund-{}-1", filed.event_id);
        let flags = ["--initiated-grace-secs=0", "--lookup-backoff-max-ms=200"];
        let running = world.start(provider.gateway(), &flags).await;
        // Each payment of another refund shows that the account as such has access.
        let mut order = 1;
        until("it is parked", || {
            order += 1;
            let world = &world;
            async move {
                let other = world.file(order).await;
                world.wait_for(other.return_id, "refunded").await;
                world.attempt_state(filed.return_id, 1).await == "parked"
            }
        })
        .await;
        let (reason, words) = parked(&world).await;
        assert_eq!(reason, "refused");
        assert!(words.ends_with(" invalid_amount amount"), "{words}");
        running.stop().await;
    }
}

/// The token has expired: the only refund of the night is not to blame.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_refund_that_is_denied_access_among_no_others_waits() {
    let is_mended = Arc::new(AtomicBool::new(false));
    let mended = Arc::clone(&is_mended);
    let provider = Provider::start(move |seen| {
        if mended.load(Ordering::SeqCst) {
            said(seen, &refund(&seen.reference()))
        } else {
            Reply::Say(http("401 Unauthorized", "", WORDS))
        }
    })
    .await;
    let world = World::new().await;
    let filed = world.file(1).await;
    let flags = ["--initiated-grace-secs=0", "--lookup-backoff-max-ms=200"];
    let running = world.start(provider.gateway(), &flags).await;
    // More than five, had they counted.
    until_true("it is tried for a while", || provider.seen().len() > 12).await;
    assert_eq!(world.attempt_state(filed.return_id, 1).await, "claimed");
    is_mended.store(true, Ordering::SeqCst);
    world.wait_for(filed.return_id, "refunded").await;
    running.stop().await;
}
