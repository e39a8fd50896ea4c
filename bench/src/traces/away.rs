//! A collector that goes away while all three programs work, and comes back: filing must not notice, and no program may
//! grow.

use std::time::Duration;

use e2e::program::Program;
use hdrhistogram::Histogram;

use super::TraceArguments;
use super::sink::Sink;
use super::stages::{Share, Stages};
use crate::filing::WARM_UP;
use crate::process::{Pids, Servers, resident_kib};
use crate::report;

const STOP_DEADLINE: Duration = Duration::from_secs(60);

struct Phase {
    name: &'static str,
    seconds: u64,
    latency: Histogram<u64>,
    filed: u64,
    wrong: u64,
    /// Of api, relay and consumer at its end.
    resident_mib: [u64; 3],
    /// Since the start of the programs.
    exported: u64,
    lost: u64,
}

pub(super) async fn run(args: &TraceArguments, servers: &Servers) -> anyhow::Result<bool> {
    let sink = Sink::listen(None).await?;
    let address = sink.address();
    let stages = Stages::set(Share::All, address).await?;
    let relay = stages.system.start("outbox-relay").await?;
    let consumer = stages.system.start("refund-consumer").await?;
    let mut running = Running {
        args,
        servers,
        programs: [&stages.api, &relay, &consumer],
        stages: &stages,
        next_order: 1,
    };
    let with = args.away_seconds / 2 + 1;
    let mut phases = vec![running.phase("there", with).await?];
    drop(sink);
    phases.push(running.phase("away", args.away_seconds).await?);
    let sink = Sink::listen(Some(address)).await?;
    phases.push(running.phase("there again", with).await?);
    let filed: u64 = phases.iter().map(|phase| phase.filed).sum();
    let is_complete = stages.returns().await? == filed;
    let is_right = phases.iter().all(|phase| phase.wrong == 0);
    let lines: Vec<String> = phases.iter().map(Phase::line).collect();
    report::table(
        &format!(
            "{} connections file with every trace recorded, and everything is sent and refunded; the collector is away for {} s",
            args.connections, args.away_seconds
        ),
        "| collector | s | filings/s | p50 ms | p99 ms | slowest ms | MiB: api / relay / consumer | spans sent | spans lost |",
        &lines,
    );
    for program in [relay, consumer] {
        program.stop(STOP_DEADLINE).await?;
    }
    let Stages { system, api, .. } = stages;
    api.stop(STOP_DEADLINE).await?;
    system.db.delete().await;
    drop(sink);
    let is_counted = phases[1].lost > phases[0].lost;
    Ok(is_complete && is_right && is_counted)
}

struct Running<'a> {
    args: &'a TraceArguments,
    servers: &'a Servers,
    programs: [&'a Program; 3],
    stages: &'a Stages,
    next_order: i64,
}

impl Running<'_> {
    /// New orders are filed for so long.
    async fn phase(&mut self, name: &'static str, seconds: u64) -> anyhow::Result<Phase> {
        let (from, connections) = (self.next_order, self.args.connections);
        let filing = seconds + WARM_UP.as_secs();
        let (load, next) = self.stages.load(from, connections, filing).await?;
        self.next_order = next;
        let pids = Pids {
            api: self.stages.api.pid(),
            mysqld: self.servers.mysqld()?,
        };
        let measured = load
            .run(WARM_UP, Duration::from_secs(seconds), &pids)
            .await?;
        let (mut exported, mut lost, mut resident_mib) = (0, 0, [0; 3]);
        for (program, mib) in self.programs.iter().zip(&mut resident_mib) {
            exported += program.metric("trace_spans_exported_total").await?;
            lost += program.metric("trace_spans_lost_total").await?;
            *mib = resident_kib(program.pid())? / 1024;
        }
        let phase = Phase {
            name,
            seconds,
            latency: measured.latency,
            filed: measured.filed,
            wrong: measured.wrong,
            resident_mib,
            exported,
            lost,
        };
        report::progress(&phase.line());
        Ok(phase)
    }
}

impl Phase {
    fn line(&self) -> String {
        let millis = |micros: u64| u32::try_from(micros).map_or(f64::NAN, f64::from) / 1_000.0;
        let at = |quantile| millis(self.latency.value_at_quantile(quantile));
        let [api, relay, consumer] = self.resident_mib;
        format!(
            "| {} | {} | {} | {:.1} | {:.1} | {:.1} | {api} / {relay} / {consumer} | {} | {} |",
            self.name,
            self.seconds,
            self.latency.len() / self.seconds,
            at(0.5),
            at(0.99),
            millis(self.latency.max()),
            self.exported,
            self.lost
        )
    }
}
