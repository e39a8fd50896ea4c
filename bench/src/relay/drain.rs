//! Drains a backlog: from the first record to the last deleted row.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::topic_check;

use super::RelayArgs;
use super::stage::{Relays, Stage};
use super::usage::{Usage, peak_mib};
use crate::process::Servers;
use crate::report;

/// Changes of one return in one transaction of the backlog.
const PER_RETURN: usize = 16;
/// Returns that one transaction changes.
const PER_TRANSACTION: usize = 64;
const SAMPLE: Duration = Duration::from_millis(50);
const STALLED: Duration = Duration::from_secs(60);
/// The rate is reported for each of this many parts of the backlog.
const SLICES: u64 = 5;

/// SHARDSxRELAYS.
struct Kind {
    shards: u8,
    relays: usize,
}

impl Kind {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let (shards, relays) = text.split_once('x').context("--drains: SHARDSxRELAYS")?;
        let kind = Self {
            shards: shards.parse()?,
            relays: relays.parse()?,
        };
        ensure!(
            (1..=16).contains(&kind.shards) && (1..=16).contains(&kind.relays),
            "--drains: 1 to 16 shards, 1 to 16 relays"
        );
        Ok(kind)
    }
}

struct Drained {
    rows: u64,
    seconds: f64,
    slices: Vec<f64>,
    usage: Usage,
    peak_mib: u64,
    duplicates: u64,
}

impl Drained {
    fn rate(&self) -> f64 {
        count(self.rows) / self.seconds
    }

    fn cells(&self) -> String {
        let slices: Vec<String> = self
            .slices
            .iter()
            .map(|rate| format!("{rate:.0}"))
            .collect();
        format!(
            "{} | {} | {} | {}",
            slices.join(" "),
            self.usage.per(count(self.rows) / 100_000.0),
            self.peak_mib,
            self.duplicates
        )
    }
}

pub(super) async fn run(args: &RelayArgs, servers: &Servers) -> anyhow::Result<bool> {
    let mut runs: Vec<Vec<Drained>> = args.drains.iter().map(|_| Vec::new()).collect();
    for _ in 0..args.rounds {
        for (name, of_kind) in args.drains.iter().zip(&mut runs) {
            let drained = measure(args, servers, &Kind::parse(name)?).await?;
            report::progress(&format!(
                "drain {name}: {:.0}/s | {}",
                drained.rate(),
                drained.cells()
            ));
            of_kind.push(drained);
        }
    }
    let mut lines = Vec::new();
    for (name, of_kind) in args.drains.iter().zip(runs) {
        let (median, low, high) = report::median(of_kind, Drained::rate);
        let (shards, relays) = name.split_once('x').unwrap_or_default();
        lines.push(format!(
            "| {shards} | {relays} | {:.0} ({low:.0} to {high:.0}) | {} |",
            median.rate(),
            median.cells()
        ));
    }
    report::table(
        &format!("Drain of {} rows, deletes included", args.rows),
        "| shards | relays | rows/s: median (range) | rows/s of each fifth | CPU s per 100,000 rows: relays / mysqld / Kafka | peak MiB of a relay | duplicates |",
        &lines,
    );
    Ok(true)
}

async fn measure(args: &RelayArgs, servers: &Servers, kind: &Kind) -> anyhow::Result<Drained> {
    let stage = Stage::set().await?;
    let rows = fill(&stage, args.rows, kind.shards).await?;
    stage.purged().await?;
    let relays = stage.relays(kind.relays).await?;
    let before = Usage::now(&relays, servers)?;
    let (seconds, slices) = watch(&relays, rows).await?;
    let usage = Usage::now(&relays, servers)?.since(before);
    let peak_mib = peak_mib(&relays)?;
    ensure!(stage.outbox_rows().await? == 0, "rows are left");
    relays.stop().await?;
    let topics = topic_check::check(&stage.system).await?;
    ensure!(topics.events == rows, "{} of {rows} events", topics.events);
    stage.system.db.delete().await;
    Ok(Drained {
        rows,
        seconds,
        slices,
        usage,
        peak_mib,
        duplicates: topics.repeats.count(),
    })
}

/// Writes at least `rows` events; returns how many.
pub(super) async fn fill(stage: &Stage, rows: u64, shards: u8) -> anyhow::Result<u64> {
    let rows = usize::try_from(rows)?;
    let returns = stage.file(rows / (8 * PER_RETURN + 1), shards).await?;
    let mut writers = [stage.writer().await?, stage.writer().await?];
    let mut written = returns.len();
    let groups: Vec<_> = returns.chunks(PER_TRANSACTION).collect();
    let mut pairs = groups.chunks(2).cycle();
    while written < rows {
        let pair = pairs.next().context("no returns")?;
        let [first, second] = &mut writers;
        let one = first.change(pair[0], PER_RETURN);
        let other = async {
            match pair.get(1) {
                Some(group) => second.change(group, PER_RETURN).await,
                None => Ok(Vec::new()),
            }
        };
        let (one, other) = tokio::try_join!(one, other)?;
        written += one.len() + other.len();
    }
    Ok(u64::try_from(written)?)
}

/// Waits until every row is deleted. Returns the seconds since the first acknowledgement, and rows per second of each slice.
pub(crate) async fn watch(relays: &Relays, rows: u64) -> anyhow::Result<(f64, Vec<f64>)> {
    let mut begun = Instant::now();
    while relays.counter("outbox_published_rows_total").await? == 0 {
        begun = Instant::now();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (mut slices, mut slice_begun, mut slice_from) = (Vec::new(), begun, 0);
    let mut progressed = (Instant::now(), 0);
    loop {
        let deleted = relays.counter("outbox_deleted_rows_total").await?
            + relays.counter("outbox_missing_rows_total").await?;
        let now = Instant::now();
        let slice_end = rows * (u64::try_from(slices.len())? + 1) / SLICES;
        if deleted >= slice_end {
            slices.push(count(deleted - slice_from) / (now - slice_begun).as_secs_f64());
            (slice_begun, slice_from) = (now, deleted);
        }
        if deleted >= rows {
            return Ok(((now - begun).as_secs_f64(), slices));
        }
        if deleted > progressed.1 {
            progressed = (now, deleted);
        }
        ensure!(
            progressed.0.elapsed() < STALLED,
            "{deleted} of {rows} rows were deleted, then no more"
        );
        tokio::time::sleep(SAMPLE).await;
    }
}

fn count(rows: u64) -> f64 {
    u32::try_from(rows).map_or(f64::NAN, f64::from)
}
