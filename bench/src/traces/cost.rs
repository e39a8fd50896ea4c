//! Filing, then sending what was filed, then refunding it: with all, a tenth and none of the traces recorded.

use std::time::Duration;

use anyhow::ensure;
use e2e::program::Program;
use e2e::{checks, until};
use hdrhistogram::Histogram;

use super::TraceArguments;
use super::sink::Sink;
use super::stages::{Share, Stages};
use crate::filing::WARM_UP;
use crate::process::{Pids, Servers};
use crate::relay::{drain, stage::Relays, usage::Usage};
use crate::{refunds, report};

const DEADLINE: Duration = Duration::from_secs(600);

/// CPU seconds of the program, mysqld and Kafka for a unit of work.
type Cpu = [f64; 3];

struct Run {
    filed_per_second: f64,
    latency: Histogram<u64>,
    api_micros: f64,
    drained_per_second: f64,
    relay_cpu: Cpu,
    refunded_per_second: f64,
    consumer_cpu: Cpu,
    spans_per_return: f64,
    lost: u64,
    is_sound: bool,
}

/// Runs in turn: every round has each share once, and begins with another one.
pub(super) async fn run(args: &TraceArguments, servers: &Servers) -> anyhow::Result<bool> {
    let sink = Sink::listen(None).await?;
    let mut runs: [Vec<Run>; 3] = [const { Vec::new() }; 3];
    for round in 0..usize::from(args.rounds) {
        for turn in 0..Share::EACH.len() {
            let at = (round + turn) % Share::EACH.len();
            let share = Share::EACH[at];
            let run = measure(args, servers, share, &sink).await?;
            report::progress(&format!("traces {}: {}", share.label(), run.cells()));
            runs[at].push(run);
        }
    }
    let is_sound = runs.iter().flatten().all(|run| run.is_sound);
    let lines: Vec<String> = Share::EACH.iter().zip(runs).map(line).collect();
    report::table(
        &format!(
            "{} connections file for {} s; the relay then sends it all, and the consumer refunds it all. Medians (ranges) of {} runs",
            args.connections, args.seconds, args.rounds
        ),
        "| traces | filings/s | p99 ms | api us per filing | rows/s sent | CPU s per 100,000 rows: relay / mysqld / Kafka \
         | refunds/s | CPU s per 10,000 refunds: consumer / mysqld / Kafka | spans per return | lost | every answer right |",
        &lines,
    );
    Ok(is_sound)
}

async fn measure(
    args: &TraceArguments,
    servers: &Servers,
    share: Share,
    sink: &Sink,
) -> anyhow::Result<Run> {
    let stages = Stages::set(share, sink.address()).await?;
    let seconds = args.seconds + WARM_UP.as_secs();
    let (load, _) = stages.load(1, args.connections, seconds).await?;
    let pids = Pids {
        api: stages.api.pid(),
        mysqld: servers.mysqld()?,
    };
    let window = Duration::from_secs(args.seconds);
    let filed = load.run(WARM_UP, window, &pids).await?;
    let returns = stages.returns().await?;
    let Stages { system, api, .. } = stages;
    let mut spans = Spans::default();
    spans.add(&api).await?;
    api.stop(DEADLINE).await?;

    let relays = Relays::start(&system, 1).await?;
    let before = Usage::now(&relays, servers)?;
    let (drain_seconds, _) = drain::watch(&relays, returns).await?;
    let usage = Usage::now(&relays, servers)?.since(before);
    for relay in relays.programs() {
        spans.add(relay).await?;
    }
    relays.stop().await?;

    let records = u64::try_from(checks::lag(&system).await?)?;
    let consumer = [system.start("refund-consumer").await?];
    let paid = refunds::watch(&consumer, returns, records, servers).await?;
    until("the last spans are sent", DEADLINE, async || {
        let was = spans_of(&consumer[0]).await?;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        Ok(spans_of(&consumer[0]).await? == was)
    })
    .await?;
    spans.add(&consumer[0]).await?;
    let [consumer] = consumer;
    consumer.stop(DEADLINE).await?;
    let refunded = "SELECT COUNT(*) FROM returns WHERE status = 'refunded'";
    let refunded = u64::try_from(system.count(refunded).await?)?;
    ensure!(refunded == returns, "{refunded} of {returns} are refunded");
    system.db.delete().await;
    let per_second = count(filed.latency.len()) / filed.seconds;
    Ok(Run {
        filed_per_second: per_second,
        api_micros: filed.cores.api * 1e6 / per_second,
        latency: filed.latency,
        drained_per_second: count(returns) / drain_seconds,
        relay_cpu: usage.seconds().map(|cpu| cpu / count(returns) * 100_000.0),
        refunded_per_second: paid.rate(),
        consumer_cpu: paid.cpu_per_return().map(|cpu| cpu * 10_000.0),
        spans_per_return: count(spans.exported) / count(returns),
        lost: spans.lost,
        is_sound: filed.wrong == 0 && filed.filed == returns,
    })
}

/// What the programs of a run have reported about their spans.
#[derive(Debug, Default)]
struct Spans {
    exported: u64,
    lost: u64,
}

impl Spans {
    async fn add(&mut self, program: &Program) -> anyhow::Result<()> {
        self.exported += spans_of(program).await?;
        self.lost += program.metric("trace_spans_lost_total").await?;
        Ok(())
    }
}

async fn spans_of(program: &Program) -> anyhow::Result<u64> {
    program.metric("trace_spans_exported_total").await
}

impl Run {
    fn p99_millis(&self) -> f64 {
        count(self.latency.value_at_quantile(0.99)) / 1_000.0
    }

    fn cells(&self) -> String {
        format!(
            "{:.0} filings/s, p99 {:.1} ms, {:.0} rows/s, {:.0} refunds/s, {:.1} spans per return, {} lost",
            self.filed_per_second,
            self.p99_millis(),
            self.drained_per_second,
            self.refunded_per_second,
            self.spans_per_return,
            self.lost
        )
    }
}

/// One line of the table. Each figure has its own median.
fn line((share, runs): (&Share, Vec<Run>)) -> String {
    let figure = |digits: usize, of: fn(&Run) -> f64| {
        let (median, low, high) = report::median(runs.iter().map(of).collect(), |one| *one);
        format!("{median:.digits$} ({low:.digits$} to {high:.digits$})")
    };
    let middle = |of: fn(&Run) -> &Cpu| {
        let each =
            |at: usize| report::median(runs.iter().map(|run| of(run)[at]).collect(), |one| *one).0;
        format!("{:.2} / {:.2} / {:.2}", each(0), each(1), each(2))
    };
    let is_sound = runs.iter().all(|run| run.is_sound);
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        share.label(),
        figure(0, |run| run.filed_per_second),
        figure(1, Run::p99_millis),
        figure(0, |run| run.api_micros),
        figure(0, |run| run.drained_per_second),
        middle(|run| &run.relay_cpu),
        figure(0, |run| run.refunded_per_second),
        middle(|run| &run.consumer_cpu),
        figure(1, |run| run.spans_per_return),
        runs.iter().map(|run| run.lost).sum::<u64>(),
        if is_sound { "yes" } else { "NO" },
    )
}

fn count(of: u64) -> f64 {
    u32::try_from(of).map_or(f64::NAN, f64::from)
}
