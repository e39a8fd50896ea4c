//! Kafka is down for twenty seconds, and the relay meets it down. Each return still has one trace, which shows the time.

use std::time::Duration;

use e2e::collector::{Collector, Span};
use e2e::stack::{Server, control};
use e2e::system::{CUSTOMER, System};

use crate::EXCLUSIVE;

const OUTAGE: Duration = Duration::from_secs(20);
const DEADLINE: Duration = Duration::from_secs(120);
const RETURNS: i64 = 20;

/// The way of a return through the programs, from its end.
const CHAIN: [&str; 6] = [
    "refund",
    "process ",
    "send ",
    "outbox.wait",
    "outbox.write",
    "POST /returns",
];

#[tokio::test]
async fn an_outage_of_kafka_is_the_wait_of_each_event_in_one_trace() -> anyhow::Result<()> {
    let _exclusive = EXCLUSIVE.lock().await;
    let mut system = System::create().await?;
    let collector = Collector::start().await?;
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
        // Every return is claimed for its record.
        ("INITIATED_GRACE_SECS", "3600".to_owned()),
    ] {
        system.env.insert(name.to_owned(), value);
    }
    system.db.seed_orders(1, RETURNS, CUSTOMER).await;
    let api = system.start("returns-api").await?;
    let consumer = system.start("refund-consumer").await?;
    control(Server::Kafka, "stop").await?;
    let relay = system.start("outbox-relay").await?;
    for order in 1..=RETURNS {
        let filed = system
            .customer
            .file(api.api_address()?, order, None)
            .await?;
        assert_eq!(filed.status, 201);
    }
    // The outage itself.
    tokio::time::sleep(OUTAGE).await;
    control(Server::Kafka, "start").await?;
    system.settled(DEADLINE).await?;
    for program in [api, relay, consumer] {
        program.stop(DEADLINE).await?;
    }
    let spans = collector.spans();
    for span in &spans {
        let has_parent = |one: &Span| {
            one.trace_id == span.trace_id && span.parent.as_ref() == Some(&one.span_id)
        };
        assert!(
            span.parent.is_none() || spans.iter().any(has_parent),
            "an orphan: {span:?}"
        );
    }
    let traces = "SELECT trace_id FROM return_events WHERE seq = 1";
    let traces: Vec<String> = sqlx::query_scalar(traces)
        .fetch_all(&system.db.pool)
        .await?;
    assert_eq!(traces.len(), usize::try_from(RETURNS)?);
    for trace_id in traces {
        let spans = collector.trace(&trace_id);
        let refunds = spans.iter().filter(|span| span.name == "refund");
        assert_eq!(refunds.count(), 1, "{spans:?}");
        let mut at = spans.iter().find(|span| span.name == "refund");
        for name in CHAIN {
            let span = at.unwrap_or_else(|| panic!("no {name}: {spans:?}"));
            assert!(span.name.starts_with(name), "{} is not {name}", span.name);
            if name == "outbox.wait" {
                let waited: u64 = span.attribute("outbox.wait_ms")?.parse()?;
                assert!(u128::from(waited) >= OUTAGE.as_millis(), "{waited} ms");
                assert!(span.ended - span.began >= u64::try_from(OUTAGE.as_nanos())?);
            }
            at = spans
                .iter()
                .find(|one| Some(&one.span_id) == span.parent.as_ref());
        }
        assert_eq!(at, None, "the request begins its trace");
    }
    Ok(())
}
