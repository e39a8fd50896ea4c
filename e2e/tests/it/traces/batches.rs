//! How many a batch was for.

use e2e::collector::Span;

use super::{DEADLINE, Traced};

/// Batch, its participants, the attribute with their number, and its statement.
const BATCHES: [(&str, &str, &str, Option<&str>); 4] = [
    (
        "filing.batch",
        "outbox.write",
        "returns.batch_size",
        Some("file_returns"),
    ),
    (
        "relay.batch",
        "send ",
        "messaging.batch.message_count",
        None,
    ),
    (
        "claim.batch",
        "process ",
        "messaging.batch.message_count",
        Some("claim"),
    ),
    (
        "settle.batch",
        "refund",
        "returns.batch_size",
        Some("settle"),
    ),
];

#[tokio::test]
async fn a_batch_says_how_many_it_was_for() -> anyhow::Result<()> {
    const RETURNS: i64 = 8;
    let traced = Traced::create(RETURNS).await?;
    let api = traced.start("returns-api").await?;
    for order in 1..=RETURNS {
        traced.file(&api, order).await?;
    }
    // All rows wait, so that the relay reads them together; and all records, so that the consumer does.
    let relay = traced.start("outbox-relay").await?;
    e2e::until("the outbox is empty", DEADLINE, async || {
        Ok(traced.system.count("SELECT COUNT(*) FROM outbox").await? == 0)
    })
    .await?;
    let consumer = traced.start("refund-consumer").await?;
    traced.system.settled(DEADLINE).await?;
    for program in [api, relay, consumer] {
        program.stop(DEADLINE).await?;
    }
    let spans = traced.collector.spans();
    for (name, participant, attribute, statement) in BATCHES {
        let batches: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
        assert!(!batches.is_empty(), "no {name}");
        for batch in batches {
            let id = (batch.trace_id.clone(), batch.span_id.clone());
            let of = |span: &&Span| span.name.starts_with(participant) && span.links.contains(&id);
            let size = spans.iter().filter(of).count();
            if size == 0 {
                // The relay did not know the topics yet: it has read the rows and put them back.
                assert_eq!(name, "relay.batch");
                continue;
            }
            assert_eq!(batch.attribute(attribute)?, size.to_string(), "{name}");
            let Some(statement) = statement else { continue };
            let statement = spans.iter().find(|span| {
                span.name == statement && span.parent.as_ref() == Some(&batch.span_id)
            });
            let statement = statement.expect("the transaction");
            // By the conventions a batch has two or more operations.
            let expected = (size > 1).then(|| size.to_string());
            let operations = statement.attributes.get("db.operation.batch.size");
            assert_eq!(operations, expected.as_ref(), "{}", statement.name);
        }
    }
    let largest = |name: &str, attribute: &str| {
        let sizes = spans.iter().filter(|span| span.name == name);
        let sizes = sizes.filter_map(|span| span.attributes[attribute].parse::<i64>().ok());
        sizes.max()
    };
    let together = largest("relay.batch", "messaging.batch.message_count");
    assert!(
        together >= Some(RETURNS),
        "{together:?}: they were read together"
    );
    Ok(())
}
