//! The trace stays one, and stays its own, whatever happens on the way.

use super::{DEADLINE, Traced};

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
