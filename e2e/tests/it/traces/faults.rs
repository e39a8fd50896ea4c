//! The trace stays one, and stays its own, whatever happens on the way.

use e2e::program::run;
use e2e::provider;
use e2e::until;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use reqwest::Client;
use serde_json::json;
use shared::domain::ids::ReturnId;

use super::{DEADLINE, Traced, caller};

/// A caller that does not record its trace.
const UNSAMPLED: u8 = 0;

#[tokio::test]
async fn a_relay_killed_before_the_delete_sends_twice_in_one_trace() -> anyhow::Result<()> {
    let traced = Traced::create(1).await?;
    let topic = traced.system.topics[0].clone();
    let api = traced.start("returns-api").await?;
    // It stands still there, and is killed once its span has arrived.
    let armed = [("FAILPOINTS", "relay.after_ack=sleep(600000)")];
    let killed = traced.system.start_with("outbox-relay", &armed).await?;
    let (_, trace_id) = traced.file(&api, 1).await?;
    traced.spans(&trace_id, &format!("send {topic}"), 1).await?;
    killed.kill().await?;
    let _relay = traced.start("outbox-relay").await?;
    let _consumer = traced.start("refund-consumer").await?;
    traced.system.settled(DEADLINE).await?;
    let sent = traced.spans(&trace_id, &format!("send {topic}"), 2).await?;
    let processed = traced
        .spans(&trace_id, &format!("process {topic}"), 2)
        .await?;
    let results: Vec<_> = processed
        .iter()
        .map(|span| span.attribute("refund.result"))
        .collect::<Result<_, _>>()?;
    assert!(
        results.contains(&"claimed") && results.contains(&"duplicate"),
        "{results:?}"
    );
    for process in &processed {
        assert!(
            sent.iter()
                .any(|send| Some(&send.span_id) == process.parent.as_ref())
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_consumer_killed_after_the_call_leaves_the_trace_to_the_next_one() -> anyhow::Result<()> {
    let mut traced = Traced::create(1).await?;
    for (name, value) in [
        ("CALL_DEADLINE_MS", "6000"),
        ("GATEWAY_CALL_TIMEOUT_MS", "5000"),
    ] {
        traced.system.env.insert(name.to_owned(), value.to_owned());
    }
    let topic = traced.system.topics[0].clone();
    let api = traced.start("returns-api").await?;
    let _relay = traced.start("outbox-relay").await?;
    // It stands still before the call, until what it has done is known.
    let armed = [(
        "FAILPOINTS",
        "consumer.before_call=sleep(1000);consumer.after_call=return",
    )];
    let mut killed = traced.system.start_with("refund-consumer", &armed).await?;
    let (_, trace_id) = traced.file(&api, 1).await?;
    killed.killed_itself(DEADLINE).await?;
    traced
        .spans(&trace_id, &format!("process {topic}"), 1)
        .await?;
    let _consumer = traced.start("refund-consumer").await?;
    traced.system.settled(DEADLINE).await?;
    let refund = traced.span(&trace_id, "refund").await?;
    assert_eq!(refund.attribute("refund.outcome")?, "refunded");
    let processed = traced
        .spans(&trace_id, &format!("process {topic}"), 1)
        .await?;
    assert!(
        processed
            .iter()
            .any(|process| Some(&process.span_id) == refund.parent.as_ref())
    );
    traced.no_orphans()
}

#[tokio::test]
async fn a_row_without_a_context_begins_a_trace_of_its_own() -> anyhow::Result<()> {
    const ROWS: i64 = 5;
    let traced = Traced::create(ROWS).await?;
    let topic = traced.system.topics[0].clone();
    let api = traced.start("returns-api").await?;
    let mut filed = Vec::new();
    for order in 1..=ROWS {
        filed.push(traced.file(&api, order).await?);
    }
    for (order, traceparent) in [(2, None), (4, Some("00-broken"))] {
        sqlx::query("UPDATE outbox SET traceparent = ? WHERE msg_key = ?")
            .bind(traceparent)
            .bind(order.to_string())
            .execute(&traced.system.db.pool)
            .await?;
    }
    let _relay = traced.start("outbox-relay").await?;
    let _consumer = traced.start("refund-consumer").await?;
    traced.system.settled(DEADLINE).await?;
    for (index, (return_id, trace_id)) in filed.iter().enumerate() {
        let is_damaged = index % 2 == 1;
        let claimed_in = traced.trace_id_of(*return_id, 2).await?;
        assert_eq!(claimed_in != *trace_id, is_damaged, "return {return_id}");
        let refund = traced.span(&claimed_in, "refund").await?;
        assert_eq!(
            refund.attribute("returns.return_id")?,
            return_id.to_string()
        );
        let send = traced.span(&claimed_in, &format!("send {topic}")).await?;
        assert_eq!(
            send.attribute("messaging.message.conversation_id")?,
            return_id.to_string()
        );
    }
    traced.no_orphans()
}

#[tokio::test]
async fn an_unsampled_caller_stays_unsampled_to_the_end() -> anyhow::Result<()> {
    let traced = Traced::create(2).await?;
    let api = traced.start("returns-api").await?;
    let _relay = traced.start("outbox-relay").await?;
    let _consumer = traced.start("refund-consumer").await?;
    let given = caller(UNSAMPLED);
    let token = traced.token("42", "customer").await?;
    let filed = Client::new()
        .post(format!("http://{}/returns", api.api_address()?))
        .bearer_auth(token)
        .header("traceparent", given.traceparent())
        .header("tracestate", "vendor=1")
        .json(&json!({"order_id": 1}))
        .send()
        .await?;
    assert_eq!(filed.status(), 201);
    let (_, sampled) = traced.file(&api, 2).await?;
    traced.system.settled(DEADLINE).await?;
    traced.span(&sampled, "refund").await?;
    let of_given = traced.collector.trace(given.trace_id());
    assert!(of_given.is_empty(), "{of_given:?}");
    let flags: Vec<(String, u8)> = sqlx::query_as(
        "SELECT e.trace_id, e.trace_flags FROM return_events AS e JOIN returns AS r ON r.id = e.return_id \
         WHERE r.order_id = 1 ORDER BY e.seq",
    )
    .fetch_all(&traced.system.db.pool)
    .await?;
    assert_eq!(flags, vec![(given.trace_id().to_owned(), UNSAMPLED); 4]);
    Ok(())
}

#[tokio::test]
async fn a_retry_begins_a_trace_that_leads_to_the_old_one() -> anyhow::Result<()> {
    let traced = Traced::create(1).await?;
    let api = traced.start("returns-api").await?;
    let (id, first) = traced.file(&api, 1).await?;
    let key = provider::key(&traced.system, ReturnId(id), 1).await?;
    traced.provider.script(&key, &["decline"], &[]).await?;
    let _relay = traced.start("outbox-relay").await?;
    let _consumer = traced.start("refund-consumer").await?;
    until("declined", DEADLINE, async || {
        let failed = "SELECT COUNT(*) FROM returns WHERE status = 'refund_failed'";
        Ok(traced.system.count(failed).await? == 1)
    })
    .await?;
    let failed = traced.span(&first, "refund").await?;
    let mut env = traced.system.env.clone();
    env.insert(
        "OPERATOR_TOKEN".to_owned(),
        traced.token("7", "admin").await?,
    );
    let id_text = id.to_string();
    let retry = [
        "refunds",
        "retry",
        &id_text,
        "--attempt",
        "1",
        "--reason",
        "again",
    ];
    run("returnsctl", &retry, &env).await?;
    traced.system.settled(DEADLINE).await?;

    let second = traced.trace_id_of(id, 5).await?;
    assert_ne!(first, second);
    let action = traced.span(&second, "refund.retry").await?;
    assert_eq!(
        (action.parent.as_ref(), action.kind),
        (None, SpanKind::Internal)
    );
    let refund = traced.span(&second, "refund").await?;
    assert_eq!(refund.parent.as_ref(), Some(&action.span_id));
    assert_eq!(refund.attribute("refund.attempt")?, "2");
    let to_first = (failed.trace_id.clone(), failed.span_id.clone());
    for span in [&action, &refund] {
        assert!(span.links.contains(&to_first), "{span:?}");
    }
    traced.no_orphans()
}
