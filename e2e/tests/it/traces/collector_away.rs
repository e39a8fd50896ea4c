//! A collector that is away or silent costs spans, and nothing else.

use std::time::Duration;

use e2e::checks;
use e2e::system::{CUSTOMER, System};
use e2e::until;
use tokio::net::TcpListener;

use super::DEADLINE;

const RETURNS: i64 = 200;
/// A program flushes for two seconds at its end; the rest is for a busy machine.
const STOP: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_collector_that_is_away_costs_only_spans() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    drop(listener);
    loses_spans_only(&format!("http://{address}")).await
}

#[tokio::test]
async fn a_collector_that_never_responds_costs_only_spans() -> anyhow::Result<()> {
    // It accepts connections and reads nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    loses_spans_only(&format!("http://{}", listener.local_addr()?)).await
}

async fn loses_spans_only(endpoint: &str) -> anyhow::Result<()> {
    let mut system = System::create().await?;
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
    ] {
        system.env.insert(name.to_owned(), value.to_owned());
    }
    system.db.seed_orders(1, RETURNS, CUSTOMER).await;
    let api = system.start("returns-api").await?;
    let relay = system.start("outbox-relay").await?;
    let consumer = system.start("refund-consumer").await?;
    for order in 1..=RETURNS {
        let filed = system
            .customer
            .file(api.api_address()?, order, None)
            .await?;
        assert_eq!(filed.status, 201);
    }
    system.settled(DEADLINE).await?;
    for program in [api, relay, consumer] {
        until("spans are counted as lost", DEADLINE, async || {
            Ok(program.metric("trace_spans_lost_total").await? > 0)
        })
        .await?;
        assert_eq!(program.metric("trace_spans_exported_total").await?, 0);
        program.stop(STOP).await?;
    }
    checks::everything(&system).await
}
