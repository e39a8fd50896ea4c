//! `trace`: from the rows alone, and from a backend that answers, has nothing, hangs, or is something else.

mod backend;

use serde_json::{Value, json};
use shared::domain::ids::ReturnId;
use shared::domain::status::Action;
use shared::domain::trace_context::TraceContext;

use self::backend::{Answer, Backend};
use crate::harness::{Ran, run};
use crate::refunds::Fixture;

/// That of the recorded answer.
const TRACE: u128 = 0x1adb_d869_297a_9539_a02d_1633_e5d8_f5de;

fn trace(number: u128, flags: u8) -> TraceContext {
    TraceContext::new(TRACE + number, 0x00f0_67aa_0ba9_02b7, flags)
}

#[track_caller]
fn traced(fixture: &Fixture, code: i32, id: ReturnId, args: &[&str]) -> Ran {
    let (name, url) = (id.to_string(), fixture.db.url());
    let args = [&["trace", &name], args].concat();
    let ran = run(&args, &[("DATABASE_URL", url)]);
    assert_eq!(ran.code, code, "{ran:?}");
    ran
}

/// Each trace, with the names of what is in it.
fn names(report: &Value) -> Vec<Vec<&str>> {
    let spans = |trace: &'_ Value| trace["spans"].as_array().cloned();
    let traces = report["traces"].as_array().expect("a list").iter();
    traces
        .map(|trace| {
            assert!(spans(trace).is_some(), "{trace}");
            let spans = trace["spans"].as_array().expect("a list").iter();
            spans.filter_map(|span| span["name"].as_str()).collect()
        })
        .collect()
}

/// The relay has sent everything.
async fn sent(fixture: &Fixture, id: ReturnId) {
    let delete = "DELETE FROM outbox WHERE aggregate_id = ?";
    fixture.execute(delete, id.0).await;
}

#[tokio::test]
async fn a_return_that_was_only_filed_waits_in_the_outbox() {
    let fixture = Fixture::new().await;
    let id = fixture.file_in(1, &trace(0, 1)).await;
    let report = traced(&fixture, 0, id, &["--json"]).json();
    assert_eq!(
        names(&report),
        [["return.initiated", "waits in the outbox"]]
    );
    let found = &report["traces"][0];
    assert_eq!(found["trace_id"], trace(0, 1).trace_id());
    assert_eq!(found["source"], "rows");
    assert_eq!(found["spans"][1]["end"], "open");
    assert_eq!(report["status"], "initiated");
    let text = traced(&fixture, 0, id, &[]).stdout;
    for part in [
        "trace 1 of 1: 1adbd869297a9539a02d1633e5d8f5de",
        "TRACE_QUERY_URL is not set",
        "customer:42",
        "…  └ waits in the outbox",
        "Not in the rows:",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
}

#[tokio::test]
async fn the_rows_know_the_claim_the_first_call_and_the_outcome_of_a_refund() {
    let fixture = Fixture::new().await;
    let id = fixture.file_in(1, &trace(0, 1)).await;
    let actions = [Action::Approve, Action::Claim, Action::Confirm];
    fixture.attempt(id, 1, "succeeded").await;
    fixture.advance_in(id, &actions, &trace(0, 1)).await;
    sent(&fixture, id).await;
    let report = traced(&fixture, 0, id, &["--json"]).json();
    assert_eq!(
        names(&report),
        [[
            "return.initiated",
            "outbox, Kafka, claim",
            "return.approved",
            "refund.requested",
            "refund.succeeded",
            "attempt 1: succeeded",
            "first call",
        ]]
    );
    let spans = &report["traces"][0]["spans"];
    assert_eq!(
        spans[1]["end_time_unix_nano"],
        spans[3]["start_time_unix_nano"]
    );
    assert_eq!(
        spans[5]["end_time_unix_nano"],
        spans[4]["start_time_unix_nano"]
    );
    assert_eq!(
        (&spans[5]["service"], &spans[6]["end"]),
        (&json!("simulated"), &json!("none"))
    );
}

#[tokio::test]
async fn a_retry_by_an_admin_is_a_trace_that_follows_the_one_before() {
    let fixture = Fixture::new().await;
    let id = fixture.file_in(1, &trace(0, 1)).await;
    fixture.attempt(id, 1, "declined").await;
    let actions = [Action::Approve, Action::Claim, Action::Decline];
    fixture.advance_in(id, &actions, &trace(0, 1)).await;
    let retry = [
        "retry",
        &id.to_string(),
        "--attempt",
        "1",
        "--reason",
        "INC-7",
    ];
    fixture.act(0, "7", &retry);
    let report = traced(&fixture, 0, id, &["--json"]).json();
    let traces = report["traces"].as_array().expect("a list");
    assert_eq!(traces.len(), 2, "{report}");
    assert_eq!(traces[0]["follows"], Value::Null);
    let follows = "refund.retried (seq 5) follows refund.failed (seq 4) of trace 1";
    assert_eq!(traces[1]["follows"], follows);
    assert!(
        names(&report)[0].contains(&"attempt 1: declined"),
        "{report}"
    );
    assert_eq!(
        names(&report)[1],
        [
            "refund.retried",
            "waits in the outbox",
            "attempt 2: claimed",
            "returnsctl: refund.retry",
        ]
    );
    assert_eq!(traces[1]["spans"][3]["service"], "admin:7");
    let text = traced(&fixture, 0, id, &[]).stdout;
    assert!(
        text.contains(&format!(
            "trace 2 of 2: {}",
            traces[1]["trace_id"].as_str().unwrap_or_default()
        )),
        "{text}"
    );
}

#[tokio::test]
async fn what_is_parked_is_shown_with_its_reason() {
    let fixture = Fixture::new().await;
    let id = fixture.file_in(1, &trace(0, 1)).await;
    fixture.attempt(id, 1, "parked").await;
    let actions = [Action::Approve, Action::Claim, Action::Park];
    fixture.advance_in(id, &actions, &trace(0, 1)).await;
    fixture
        .execute(
            "INSERT INTO outbox_parked (shard, id, event_id, aggregate_id, seq, event_type, topic, msg_key, payload, \
             traceparent, tracestate, created_at, first_error, attempts, parked_at) SELECT shard, id, event_id, aggregate_id, \
             seq, event_type, topic, msg_key, payload, traceparent, tracestate, created_at, 'too large', 1, \
             created_at + INTERVAL 2 SECOND FROM outbox WHERE aggregate_id = ? AND seq = 4",
            id.0,
        )
        .await;
    sent(&fixture, id).await;
    let text = traced(&fixture, 0, id, &[]).stdout;
    for part in [
        "refund.parked",
        " 2000 ms  ├ waited in the outbox",
        "└ parked FAILED too large",
        "attempt 1: parked not_found",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn the_spans_of_a_backend_are_shown_as_a_tree() {
    let fixture = Fixture::new().await;
    let id = fixture.file_in(1, &trace(0, 1)).await;
    let backend = Backend::start(Answer::Recorded);
    let url = ["--trace-query-url", &backend.url];
    let text = traced(&fixture, 0, id, &url).stdout;
    assert_eq!(text, include_str!("trace/tree.txt"), "{text}");
    let report = traced(&fixture, 0, id, &[&["--json"], &url[..]].concat()).json();
    assert_eq!(report["traces"][0]["source"], "backend");
    assert_eq!(
        backend.requests()[0],
        "GET /api/v3/traces/1adbd869297a9539a02d1633e5d8f5de HTTP/1.1"
    );
}

#[tokio::test]
async fn a_trace_that_the_backend_does_not_have_is_shown_from_the_rows() {
    let fixture = Fixture::new().await;
    let id = fixture.file_in(1, &trace(0, 1)).await;
    for answer in [
        Answer::NotFound,
        Answer::Body(r#"{"result":{"resourceSpans":[]}}"#),
    ] {
        let backend = Backend::start(answer);
        let ran = traced(&fixture, 0, id, &["--trace-query-url", &backend.url]);
        let text = ran.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("from the rows: 127.0.0.1:"), "{text}");
        assert!(text.contains("does not have it"), "{text}");
        assert!(text.contains("waits in the outbox"), "{text}");
    }
}

#[tokio::test]
async fn a_trace_that_was_not_sampled_is_not_asked_for() {
    let fixture = Fixture::new().await;
    let id = fixture.file_in(1, &trace(0, 0)).await;
    let backend = Backend::start(Answer::NotFound);
    let ran = traced(&fixture, 0, id, &["--trace-query-url", &backend.url]);
    assert!(ran.stdout.contains("it was not sampled"), "{ran:?}");
    assert_eq!(backend.requests(), [""; 0]);
}

#[tokio::test]
async fn a_backend_that_hangs_is_given_up_and_the_rows_are_shown() {
    let fixture = Fixture::new().await;
    let id = fixture.file_in(1, &trace(0, 1)).await;
    fixture
        .advance_in(id, &[Action::Approve], &trace(1, 1))
        .await;
    for answer in [Answer::Nothing, Answer::Half] {
        let backend = Backend::start(answer);
        let ran = traced(&fixture, 2, id, &["--trace-query-url", &backend.url]);
        assert!(ran.stdout.contains("waits in the outbox"), "{ran:?}");
        assert!(ran.stderr.contains("error[unreachable]"), "{ran:?}");
        assert!(
            ran.stderr.contains("no complete answer within 5 s"),
            "{ran:?}"
        );
        // The second trace is not waited for.
        assert_eq!(backend.requests().len(), 1);
    }
}

#[tokio::test]
async fn p13_a_backend_that_is_away_is_named_without_its_password() {
    let fixture = Fixture::new().await;
    let id = fixture.file_in(1, &trace(0, 1)).await;
    let url = "http://reader:s3cret@127.0.0.1:1/jaeger";
    let ran = traced(&fixture, 2, id, &["--trace-query-url", url]);
    assert!(
        ran.stderr.contains("the trace backend at 127.0.0.1:1"),
        "{ran:?}"
    );
    assert!(!format!("{ran:?}").contains("s3cret"), "{ran:?}");
}

#[tokio::test]
async fn an_answer_that_is_no_trace_is_a_problem_of_the_address() {
    let fixture = Fixture::new().await;
    let id = fixture.file_in(1, &trace(0, 1)).await;
    for (answer, part) in [
        (Answer::Body("<html>"), "with no trace"),
        (Answer::Body("{}"), "with no trace"),
        (Answer::Failure, "with status 500"),
    ] {
        let backend = Backend::start(answer);
        let ran = traced(&fixture, 1, id, &["--trace-query-url", &backend.url]);
        assert!(ran.stdout.contains("waits in the outbox"), "{ran:?}");
        assert!(ran.stderr.contains(part), "{ran:?}");
        assert!(ran.stderr.contains("TRACE_QUERY_URL"), "{ran:?}");
    }
}

#[tokio::test]
async fn a_return_of_nobody_and_bad_arguments_are_refused() {
    let fixture = Fixture::new().await;
    let ran = traced(&fixture, 1, ReturnId(99), &[]);
    assert!(ran.stderr.contains("there is no return 99"), "{ran:?}");
    let url = "reader:s3cret@localhost:16686";
    let ran = run(&["trace", "x", "--trace-query-url", url], &[]);
    assert_eq!(ran.code, 64, "{ran:?}");
    for part in [
        "must be a return's id",
        "TRACE_QUERY_URL must be a URL that begins with http",
    ] {
        assert!(ran.stderr.contains(part), "{part}: {ran:?}");
    }
    assert!(!format!("{ran:?}").contains("s3cret"), "{ran:?}");
    let variables = [("TRACE_QUERY_URL", "http://reader:s3cret@localhost:16686")];
    let ran = run(&["trace", "--help"], &variables);
    assert!(!ran.stdout.contains("s3cret"), "{ran:?}");
}
