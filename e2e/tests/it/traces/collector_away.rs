//! A collector that is away, silent or wrong costs spans, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use e2e::checks;
use e2e::program::Program;
use e2e::system::{CUSTOMER, System};
use e2e::until;
use tokio::net::TcpListener;

use super::{DEADLINE, Traced};

const RETURNS: i64 = 200;
/// The program, and its drain deadline as it is configured.
const PROGRAMS: [(&str, Duration); 3] = [
    ("returns-api", Duration::from_secs(25)),
    ("outbox-relay", Duration::from_secs(10)),
    ("refund-consumer", Duration::from_secs(15)),
];
/// What the last spans get, however late the rest of the program is.
const SHORTEST_FLUSH: Duration = Duration::from_millis(250);

#[tokio::test]
async fn a_collector_that_is_away_costs_only_spans() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    drop(listener);
    loses_spans_only(&format!("http://{address}"), || true).await
}

#[tokio::test]
async fn a_collector_that_never_responds_costs_only_spans() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let hanging = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&hanging);
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            // It stays open, and nobody reads it.
            kept.push(connection);
            count.store(kept.len(), Ordering::Relaxed);
        }
    });
    let hangs = || hanging.load(Ordering::Relaxed) > 0;
    loses_spans_only(&format!("http://{address}"), hangs).await
}

/// `hangs`: whether a program waits for the collector now.
async fn loses_spans_only(endpoint: &str, hangs: impl Fn() -> bool) -> anyhow::Result<()> {
    let mut system = System::create().await?;
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
        // A silent collector is waited for until the end of the test.
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "600000"),
    ] {
        system.env.insert(name.to_owned(), value.to_owned());
    }
    system.db.seed_orders(1, RETURNS, CUSTOMER).await;
    let mut programs = Vec::new();
    for (name, drain) in PROGRAMS {
        programs.push((system.start(name).await?, drain));
    }
    let address = programs[0].0.api_address()?;
    assert_eq!(system.customer.file(address, 1, None).await?.status, 201);
    until("the first spans are on their way", DEADLINE, async || {
        Ok(hangs())
    })
    .await?;
    for order in 2..=RETURNS {
        let filed = system.customer.file(address, order, None).await?;
        assert_eq!(filed.status, 201);
    }
    system.settled(DEADLINE).await?;
    for (program, drain) in programs {
        until("spans are counted as lost", DEADLINE, async || {
            Ok(program.metric("trace_spans_lost_total").await? > 0)
        })
        .await?;
        assert_eq!(program.metric("trace_spans_exported_total").await?, 0);
        // A stop waits for no collector: the flush is part of the drain deadline.
        program.stop(drain + SHORTEST_FLUSH).await?;
    }
    checks::everything(&system).await
}

#[tokio::test]
async fn a_wrong_endpoint_is_logged_once_and_without_its_password() -> anyhow::Result<()> {
    let closed = TcpListener::bind("127.0.0.1:0").await?;
    let away = closed.local_addr()?;
    drop(closed);
    let mut traced = Traced::create(1).await?;
    let collector = traced.collector.address();
    for (variable, host, path) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", away, ""),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector, "/wrong"),
    ] {
        let endpoint = format!("http://shop:hunter2@{host}{path}");
        traced.set(&[(variable, &endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "5")]);
        let api = traced.start("returns-api").await?;
        for lost in 1..=5 {
            traced
                .system
                .customer
                .get(api.api_address()?, "/nowhere")
                .await?;
            until("a batch is lost", DEADLINE, async || {
                Ok(api.metric("trace_spans_lost_total").await? >= lost)
            })
            .await?;
        }
        let lines = until("it is logged", DEADLINE, async || Ok(failures(&api))).await?;
        let [line] = lines.as_slice() else {
            panic!("{lines:?}");
        };
        assert!(line.contains(&host.to_string()), "{line}");
        let log = api.lines_after(0).join("\n");
        assert!(!log.contains("hunter2"), "{log}");
    }
    Ok(())
}

/// The lines that say so; a reminder comes after a minute.
fn failures(api: &Program) -> Option<Vec<String>> {
    let mut lines = api.lines_after(0);
    lines.retain(|line| line.contains("sending spans to") && line.contains("is tried again"));
    (!lines.is_empty()).then_some(lines)
}
