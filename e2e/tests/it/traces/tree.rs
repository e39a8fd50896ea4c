//! The tree of a refund without faults: parents, kinds, attributes and links.

use e2e::collector::Span;
use e2e::program::run;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};

use super::{DEADLINE, Traced};

fn is_child(child: &Span, parent: &Span) {
    assert_eq!(
        (&child.trace_id, child.parent.as_ref()),
        (&parent.trace_id, Some(&parent.span_id)),
        "{} under {}",
        child.name,
        parent.name
    );
    assert!(
        child.began >= parent.began,
        "{} began before {}",
        child.name,
        parent.name
    );
}

fn leads_to(span: &Span, other: &Span) {
    let link = (other.trace_id.clone(), other.span_id.clone());
    assert!(
        span.links.contains(&link),
        "{} does not lead to {}",
        span.name,
        other.name
    );
}

fn has(span: &Span, attributes: &[(&str, &str)]) -> anyhow::Result<()> {
    for (name, value) in attributes {
        assert_eq!(span.attribute(name)?, *value, "{name} of {}", span.name);
    }
    Ok(())
}

#[tokio::test]
async fn one_trace_leads_from_the_request_to_the_refund() -> anyhow::Result<()> {
    const RETURNS: i64 = 10;
    let traced = Traced::create(RETURNS).await?;
    let api = traced.start("returns-api").await?;
    let relay = traced.start("outbox-relay").await?;
    let consumer = traced.start("refund-consumer").await?;
    let mut filed = Vec::new();
    for order in 1..=RETURNS {
        filed.push((order, traced.file(&api, order).await?));
    }
    traced.system.settled(DEADLINE).await?;
    for program in [api, relay, consumer] {
        program.stop(DEADLINE).await?;
    }
    traced.no_orphans()?;
    only_known_spans(&traced)?;
    for (order, (return_id, trace_id)) in filed {
        check(&traced, order, return_id, &trace_id).await?;
        read_back(&traced, return_id, &trace_id).await?;
    }
    Ok(())
}

/// Nothing else is recorded: not the requests to the collector, no look at an empty outbox, no scan.
fn only_known_spans(traced: &Traced) -> anyhow::Result<()> {
    let [topic, status_topic] = &traced.system.topics;
    let send = [topic, status_topic].map(|topic| format!("send {topic}"));
    let process = format!("process {topic}");
    let known = [
        "POST /returns",
        "outbox.write",
        "outbox.wait",
        &send[0],
        &send[1],
        &process,
        "refund",
        "POST",
        "filing.batch",
        "relay.batch",
        "claim.batch",
        "settle.batch",
    ];
    for span in traced.collector.spans() {
        // A statement has the name of its unit of work.
        let is_known = match span.attributes.get("db.operation.name") {
            Some(name) => *name == span.name && span.parent.is_some(),
            None => known.contains(&span.name.as_str()),
        };
        anyhow::ensure!(is_known, "nobody expects {span:?}");
    }
    Ok(())
}

/// `returnsctl trace` shows each span where it is, and when it was.
async fn read_back(traced: &Traced, return_id: i64, trace_id: &str) -> anyhow::Result<()> {
    let mut env = traced.system.env.clone();
    env.insert("TRACE_QUERY_URL".to_owned(), traced.collector.endpoint());
    let shown = run(
        "returnsctl",
        &["trace", &return_id.to_string(), "--json"],
        &env,
    )
    .await?;
    let shown: Value = serde_json::from_str(&shown)?;
    assert_eq!(shown["traces"][0]["source"], "backend", "{shown}");
    let mut expected: Vec<Value> = traced.collector.trace(trace_id).iter().map(row).collect();
    let spans = shown["traces"][0]["spans"].as_array().expect("a list");
    let columns = [
        "span_id",
        "parent",
        "name",
        "service",
        "start_time_unix_nano",
        "end_time_unix_nano",
    ];
    let read = |span: &Value| columns.iter().map(|column| span[column].clone()).collect();
    let mut found: Vec<Value> = spans.iter().map(read).collect();
    for list in [&mut found, &mut expected] {
        list.sort_by_key(ToString::to_string);
    }
    assert_eq!(found, expected);
    Ok(())
}

fn row(span: &Span) -> Value {
    let (began, ended) = (span.began.to_string(), span.ended.to_string());
    json!([
        span.span_id,
        span.parent,
        span.name,
        span.service,
        began,
        ended
    ])
}

async fn check(traced: &Traced, order: i64, return_id: i64, trace_id: &str) -> anyhow::Result<()> {
    let [topic, status_topic] = &traced.system.topics;
    let server = traced.span(trace_id, "POST /returns").await?;
    let write = traced.span(trace_id, "outbox.write").await?;
    let send = traced.span(trace_id, &format!("send {topic}")).await?;
    let process = traced.span(trace_id, &format!("process {topic}")).await?;
    let refund = traced.span(trace_id, "refund").await?;
    let call = traced.span(trace_id, "POST").await?;
    let waits = traced.spans(trace_id, "outbox.wait", 4).await?;
    let wait = waits
        .iter()
        .find(|wait| wait.parent.as_ref() == Some(&write.span_id))
        .expect("the event waited");

    assert_eq!(
        (server.parent.as_ref(), server.kind),
        (None, SpanKind::Server)
    );
    has(
        &server,
        &[
            ("http.request.method", "POST"),
            ("http.route", "/returns"),
            ("http.response.status_code", "201"),
            ("url.path", "/returns"),
        ],
    )?;
    is_child(&write, &server);
    assert_eq!(
        (write.kind, wait.kind),
        (SpanKind::Internal, SpanKind::Internal)
    );
    is_child(&send, wait);
    assert_eq!(send.kind, SpanKind::Producer);
    has(
        &send,
        &[
            ("messaging.system", "kafka"),
            ("messaging.operation.name", "send"),
            ("messaging.destination.name", topic),
            ("messaging.kafka.message.key", &order.to_string()),
            ("messaging.message.conversation_id", &return_id.to_string()),
        ],
    )?;
    assert_eq!(
        send.attribute("messaging.message.id")?,
        wait.attribute("messaging.message.id")?
    );
    is_child(&process, &send);
    leads_to(&process, &send);
    assert_eq!(process.kind, SpanKind::Consumer);
    has(
        &process,
        &[
            ("messaging.system", "kafka"),
            ("messaging.operation.name", "process"),
            ("messaging.destination.name", topic),
            (
                "messaging.consumer.group.name",
                &traced.system.env["CONSUMER_GROUP"],
            ),
            ("refund.result", "claimed"),
        ],
    )?;
    is_child(&refund, &process);
    has(
        &refund,
        &[
            ("returns.return_id", &return_id.to_string()),
            ("refund.attempt", "1"),
            ("refund.outcome", "refunded"),
        ],
    )?;
    is_child(&call, &refund);
    assert_eq!(call.kind, SpanKind::Client);
    has(
        &call,
        &[
            ("http.request.method", "POST"),
            ("http.response.status_code", "201"),
            ("server.address", "127.0.0.1"),
        ],
    )?;
    // Approval and claim are sent under the record that led to them, the refund under its attempt.
    let sent = traced
        .spans(trace_id, &format!("send {status_topic}"), 3)
        .await?;
    let parents = [&process, &process, &refund];
    assert_eq!(sent.len(), parents.len());
    for span in &sent {
        let wait = waits
            .iter()
            .find(|wait| Some(&wait.span_id) == span.parent.as_ref());
        let cause = wait.and_then(|wait| wait.parent.clone());
        assert!(
            parents
                .iter()
                .any(|parent| Some(&parent.span_id) == cause.as_ref())
        );
    }
    shared_work(
        traced,
        &[
            (&write, "filing.batch", "file_returns"),
            (&process, "claim.batch", "claim"),
            (&refund, "settle.batch", "settle"),
        ],
    )?;
    leads_to(&send, &batch_of(traced, &send, "relay.batch")?);
    Ok(())
}

/// A transaction for many belongs to a trace of its own; both lead to each other.
fn shared_work(traced: &Traced, work: &[(&Span, &str, &str)]) -> anyhow::Result<()> {
    for (span, batch, transaction) in work {
        let batch = batch_of(traced, span, batch)?;
        assert_ne!(batch.trace_id, span.trace_id);
        leads_to(&batch, span);
        let spans = traced.collector.trace(&batch.trace_id);
        let transaction = spans
            .iter()
            .find(|one| one.name == *transaction)
            .expect("the transaction is its child");
        is_child(transaction, &batch);
        assert_eq!(transaction.kind, SpanKind::Client);
        has(transaction, &[("db.system.name", "mysql")])?;
    }
    Ok(())
}

fn batch_of(traced: &Traced, span: &Span, name: &str) -> anyhow::Result<Span> {
    let spans = traced.collector.spans();
    let batch = spans.into_iter().find(|one| {
        one.name == name
            && span
                .links
                .contains(&(one.trace_id.clone(), one.span_id.clone()))
    });
    batch.ok_or_else(|| anyhow::anyhow!("{} leads to no {name}", span.name))
}
