//! An event that an operator puts back.

use e2e::program::run;
use e2e::until;

use super::{DEADLINE, Traced};

/// The old trace may have ended days ago.
#[tokio::test]
async fn a_parked_event_that_is_put_back_begins_a_trace_that_leads_to_the_old_one()
-> anyhow::Result<()> {
    let traced = Traced::create(2).await?;
    let [topic, _] = &traced.system.topics;
    let api = traced.start("returns-api").await?;
    let mut filed = Vec::new();
    for order in 1..=2 {
        filed.push(traced.file(&api, order).await?);
    }
    // The relay is not there yet, and nobody records the trace of the second one.
    let unsampled =
        "UPDATE outbox SET traceparent = CONCAT(LEFT(traceparent, 53), '00') WHERE msg_key = '2'";
    sqlx::query(unsampled)
        .execute(&traced.system.db.pool)
        .await?;
    let why = ["--by", "j.doe", "--reason", "test"];
    for command in [
        &["outbox", "park", "--topic", topic.as_str()][..],
        &["outbox", "redrive", "--all"],
    ] {
        let args: Vec<&str> = command.iter().chain(&why).copied().collect();
        run("returnsctl", &args, &traced.system.env).await?;
    }
    let _relay = traced.start("outbox-relay").await?;
    let _consumer = traced.start("refund-consumer").await?;
    traced.system.settled(DEADLINE).await?;

    let (id, first) = &filed[0];
    let second = traced.trace_id_of(*id, 2).await?;
    assert_ne!(*first, second);
    let write = traced.span(first, "outbox.write").await?;
    let action = traced.span(&second, "outbox.redrive").await?;
    assert_eq!(action.parent, None);
    assert!(action.links.contains(&(first.clone(), write.span_id)));
    traced.span(&second, "refund").await?;
    traced.span(&second, &format!("send {topic}")).await?;
    let (id, unrecorded) = &filed[1];
    assert_eq!(traced.trace_id_of(*id, 2).await?, *unrecorded, "it goes on");
    until("every span has its parent", DEADLINE, async || {
        Ok(traced.no_orphans().is_ok())
    })
    .await
}
