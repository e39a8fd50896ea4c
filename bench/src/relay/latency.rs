//! The time from COMMIT to a Kafka consumer, at a fixed rate of commits.
//!
//! The clock starts when the writer gets the response to COMMIT and stops when an independent consumer has the record. The
//! result is an upper bound for the time from commit to acknowledgement. A transaction that could not start in time starts
//! at once, and its events count from their own commit.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use hdrhistogram::Histogram;
use shared::domain::ids::ReturnId;
use uuid::Uuid;

use super::RelayArgs;
use super::reader::Arrivals;
use super::stage::{Relays, Stage};
use super::usage::{Usage, peak_mib};
use crate::process::Servers;
use crate::report;

const WRITERS: u32 = 8;
/// Returns of one writer; each transaction changes the next ones.
const RETURNS: usize = 500;
/// Until Kafka's JVM has compiled the code for small requests; before that, p50 at 1,000/s is five times as long.
const WARM_UP: Duration = Duration::from_secs(30);
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(30);

/// Commits at a fixed rate, on returns whose first events are published.
pub(super) struct Load<'a> {
    pub(super) returns: &'a [ReturnId],
    /// Events per second, and in each transaction.
    pub(super) rate: u32,
    pub(super) per_transaction: u32,
    pub(super) warm_up: Duration,
    pub(super) measure: Duration,
}

pub(super) struct Run {
    committed_per_second: f64,
    latency: Histogram<u64>,
    pub(super) cores: Usage,
    peak_mib: u64,
}

impl Run {
    pub(super) fn millis(&self, quantile: f64) -> f64 {
        let micros = self.latency.value_at_quantile(quantile);
        u32::try_from(micros).map_or(f64::NAN, f64::from) / 1_000.0
    }

    fn cells(&self) -> String {
        format!(
            "{:.0} | {:.1} | {:.1} | {:.1} | {:.1} | {} | {}",
            self.committed_per_second,
            self.millis(0.5),
            self.millis(0.99),
            self.millis(0.999),
            self.millis(1.0),
            self.cores.per(1.0),
            self.peak_mib
        )
    }
}

pub(super) async fn run(args: &RelayArgs, servers: &Servers) -> anyhow::Result<bool> {
    let mut lines = Vec::new();
    let mut runs: Vec<(u32, Run)> = Vec::new();
    for _ in 0..args.rounds {
        for rate in &args.rates {
            let run = measure(args, servers, *rate).await?;
            report::progress(&format!("latency at {rate}/s: {}", run.cells()));
            runs.push((*rate, run));
        }
    }
    for rate in &args.rates {
        let (of_rate, rest) = runs.into_iter().partition(|run| run.0 == *rate);
        runs = rest;
        let (median, low, high) = report::median(of_rate, |run: &(u32, Run)| run.1.millis(0.99));
        lines.push(format!(
            "| {rate} | {} | {low:.1} to {high:.1} |",
            median.1.cells()
        ));
    }
    report::table(
        "From COMMIT to a reader of Kafka",
        "| asked/s | committed/s | p50 ms | p99 ms | p99.9 ms | max ms | cores: relay / mysqld / Kafka | peak MiB of the relay | p99 of all rounds |",
        &lines,
    );
    Ok(true)
}

async fn measure(args: &RelayArgs, servers: &Servers, rate: u32) -> anyhow::Result<Run> {
    let stage = Stage::set().await?;
    let returns = file_returns(&stage).await?;
    let relays = stage.relays(1).await?;
    let load = Load {
        returns: &returns,
        rate,
        per_transaction: args.per_transaction,
        warm_up: WARM_UP,
        measure: Duration::from_secs(args.seconds),
    };
    let run = load.run(&stage, &relays, servers).await?;
    relays.stop().await?;
    Ok(run)
}

/// As many returns as the writers need.
pub(super) async fn file_returns(stage: &Stage) -> anyhow::Result<Vec<ReturnId>> {
    stage.file(RETURNS * usize::try_from(WRITERS)?, 16).await
}

impl Load<'_> {
    pub(super) async fn run(
        &self,
        stage: &Stage,
        relays: &Relays,
        servers: &Servers,
    ) -> anyhow::Result<Run> {
        stage.all_published(ARRIVAL_DEADLINE).await?;
        let arrivals = Arrivals::watch(&stage.system)?;
        let start = Instant::now() + Duration::from_millis(200);
        let from = start + self.warm_up;
        let writing = self.spawn_writers(stage, start).await?;
        tokio::time::sleep_until(from.into()).await;
        let before = Usage::now(relays, servers)?;
        tokio::time::sleep_until((from + self.measure).into()).await;
        let cores = Usage::now(relays, servers)?.since(before);
        let mut committed = HashMap::new();
        for part in writing.join_all().await {
            committed.extend(part?);
        }
        stage.all_published(ARRIVAL_DEADLINE).await?;
        // The last record was acknowledged before its row was deleted; the consumer is milliseconds behind.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let arrived = arrivals.finish().await?;
        let latency = latencies(&committed, &arrived, from)?;
        let events = u32::try_from(latency.len())?;
        let seconds = self.measure.as_secs_f64();
        Ok(Run {
            committed_per_second: f64::from(events) / seconds,
            latency,
            cores: Usage {
                relays: cores.relays / seconds,
                mysqld: cores.mysqld / seconds,
                kafka: cores.kafka / seconds,
            },
            peak_mib: peak_mib(relays)?,
        })
    }

    async fn spawn_writers(&self, stage: &Stage, start: Instant) -> anyhow::Result<Written> {
        let mut tasks = Written::new();
        let size = usize::try_from(self.per_transaction)?;
        // Between two transactions of one writer, and of any two.
        let step = Duration::from_secs(1) * self.per_transaction / self.rate;
        let end = start + self.warm_up + self.measure;
        for (number, own) in (0..WRITERS).zip(self.returns.chunks(RETURNS)) {
            let mut writer = stage.writer().await?;
            let own = own.to_vec();
            tasks.spawn(async move {
                let mut committed = HashMap::new();
                let mut at = start + step * number;
                for group in own.chunks(size).cycle() {
                    tokio::time::sleep_until(at.into()).await;
                    if Instant::now() >= end {
                        break;
                    }
                    let applied = writer.change(group, 1).await?;
                    let now = Instant::now();
                    committed.extend(applied.iter().map(|change| (change.event_id.0, now)));
                    at += step * WRITERS;
                }
                Ok(committed)
            });
        }
        Ok(tasks)
    }
}

/// The events of one writer, and when it got the response to COMMIT.
type Written = tokio::task::JoinSet<anyhow::Result<HashMap<Uuid, Instant>>>;

/// Microseconds of every event that was committed from `from` on.
fn latencies(
    committed: &HashMap<Uuid, Instant>,
    arrived: &HashMap<Uuid, Instant>,
    from: Instant,
) -> anyhow::Result<Histogram<u64>> {
    let mut latency = Histogram::new(3)?;
    for (event, commit) in committed {
        let Some(arrival) = arrived.get(event) else {
            anyhow::bail!("event {event} was committed and never arrived");
        };
        if *commit >= from {
            // A record may arrive before the response to COMMIT.
            let micros = arrival.saturating_duration_since(*commit).as_micros();
            latency.record(u64::try_from(micros)?.max(1))?;
        }
    }
    ensure!(!latency.is_empty(), "nothing was committed");
    Ok(latency)
}
