//! One trace from the request to the refund, as a collector receives it.

mod attempts;
mod batches;
mod cancelled;
mod collector_away;
mod faults;
mod ids;
mod redrive;
mod sampling;
mod settings;
mod tree;

use std::time::Duration;

use anyhow::Context;
use e2e::collector::{Collector, Span};
use e2e::program::{Program, run};
use e2e::provider::Provider;
use e2e::system::{CUSTOMER, System};
use e2e::until;

/// Well above the time that a busy machine needs.
const DEADLINE: Duration = Duration::from_secs(120);

/// A system whose programs send their spans to a collector.
struct Traced {
    system: System,
    collector: Collector,
    provider: Provider,
}

impl Traced {
    async fn create(orders: i64) -> anyhow::Result<Self> {
        let mut system = System::create().await?;
        let collector = Collector::start().await?;
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
            // A program that is killed loses what has not been sent.
            ("OTEL_BSP_SCHEDULE_DELAY", "20".to_owned()),
            ("TRUSTED_PROXIES", "127.0.0.1".to_owned()),
            // Every return is claimed for its record, however slow the machine is.
            ("INITIATED_GRACE_SECS", "3600".to_owned()),
        ] {
            system.env.insert(name.to_owned(), value);
        }
        let provider = Provider::start(&mut system, &[]).await?;
        system.db.seed_orders(1, orders, CUSTOMER).await;
        Ok(Self {
            system,
            collector,
            provider,
        })
    }

    /// For programs that start later.
    fn set(&mut self, settings: &[(&str, &str)]) {
        let settings = settings.iter();
        let owned = settings.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.system.env.extend(owned);
    }

    async fn token(&self, user: &str, role: &str) -> anyhow::Result<String> {
        let mint = ["token", "mint", "--user", user, "--role", role];
        let token = run("returnsctl", &mint, &self.system.env).await?;
        Ok(token.trim().to_owned())
    }

    async fn start(&self, name: &'static str) -> anyhow::Result<Program> {
        self.system.start(name).await
    }

    /// Files a return; returns its id and its trace id.
    async fn file(&self, api: &Program, order: i64) -> anyhow::Result<(i64, String)> {
        let client = &self.system.customer;
        let filed = client.file(api.api_address()?, order, None).await?;
        let id = filed.return_id().context("a 201")?;
        Ok((id, self.trace_id_of(id, 1).await?))
    }

    /// The trace of an event of a return.
    async fn trace_id_of(&self, return_id: i64, seq: i32) -> anyhow::Result<String> {
        let trace_id = sqlx::query_scalar(
            "SELECT trace_id FROM return_events WHERE return_id = ? AND seq = ?",
        )
        .bind(return_id)
        .bind(seq)
        .fetch_one(&self.system.db.pool)
        .await?;
        Ok(trace_id)
    }

    /// Waits until the trace has `count` spans of this name.
    async fn spans(&self, trace_id: &str, name: &str, count: usize) -> anyhow::Result<Vec<Span>> {
        let find = || {
            let mut spans = self.collector.trace(trace_id);
            spans.retain(|span| span.name == name);
            spans
        };
        let arrived = until("the spans have arrived", DEADLINE, async || {
            Ok(find().len() >= count)
        });
        arrived.await.with_context(|| {
            let all = self.collector.trace(trace_id).into_iter();
            let names: Vec<_> = all.map(|span| (span.service, span.name)).collect();
            format!("{count} of {name} among {names:?}")
        })?;
        Ok(find())
    }

    /// The only span of this name.
    async fn span(&self, trace_id: &str, name: &str) -> anyhow::Result<Span> {
        let mut spans = self.spans(trace_id, name, 1).await?;
        anyhow::ensure!(spans.len() == 1, "{} of {name}", spans.len());
        Ok(spans.remove(0))
    }

    /// Every parent of a span is there, within its own trace.
    fn no_orphans(&self) -> anyhow::Result<()> {
        let spans = self.collector.spans();
        for span in &spans {
            let Some(parent) = &span.parent else { continue };
            let is_there = spans
                .iter()
                .any(|one| one.span_id == *parent && one.trace_id == span.trace_id);
            anyhow::ensure!(is_there, "an orphan: {span:?}");
        }
        Ok(())
    }
}
