//! The refund consumer: how fast it refunds a backlog in Kafka, including audit trail and outbox. Every table is checked
//! afterwards.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::load::Writer;
use e2e::program::Program;
use e2e::provider::Provider;
use e2e::system::System;
use e2e::{checks, until};
use shared::domain::ids::OrderId;

use crate::process::{Servers, cpu_seconds, peak_resident_kib};
use crate::report;

#[derive(Debug, clap::Args)]
pub(crate) struct RefundArgs {
    /// The gateways to measure.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Gateway::InProcess, Gateway::Http])]
    gateways: Vec<Gateway>,

    /// Consumers that share the work.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2], value_parser = clap::value_parser!(u8).range(1..=16))]
    consumers: Vec<u8>,

    /// Runs of each kind, in turn; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=99))]
    rounds: u8,

    /// Returns in the backlog.
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    returns: u32,

    /// Calls at the same time through HTTP: 64 calls of 50 ms cannot be more than 1,280 a second.
    #[arg(long, default_value_t = 512)]
    parallel: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Gateway {
    /// The simulated gateway, which responds at once.
    InProcess,
    /// `returnsctl dev-gateway`, which responds after 50 ms.
    Http,
}

impl Gateway {
    fn label(self) -> &'static str {
        match self {
            Self::InProcess => "in process, 0 ms",
            Self::Http => "HTTP, 50 ms",
        }
    }
}

pub(crate) struct Paid {
    returns: f64,
    seconds: f64,
    /// CPU seconds of the consumers, mysqld and Kafka.
    cpu: [f64; 3],
    /// Peak memory of the largest consumer.
    peak_mib: u64,
    /// The highest lag of any sample: records in Kafka that were not claimed.
    highest_lag: u64,
}

impl Paid {
    pub(crate) fn rate(&self) -> f64 {
        self.returns / self.seconds
    }

    /// Of consumers, mysqld and Kafka.
    pub(crate) fn cpu_per_return(&self) -> [f64; 3] {
        self.cpu.map(|seconds| seconds / self.returns)
    }

    fn cells(&self) -> String {
        let cpu = self.cpu_per_return();
        let cpu = cpu.map(|seconds| format!("{:.2}", seconds * 10_000.0));
        let lag = self.highest_lag;
        format!("{} | {} | {lag}", cpu.join(" / "), self.peak_mib)
    }
}

const SAMPLE: Duration = Duration::from_millis(50);
const DEADLINE: Duration = Duration::from_secs(600);
/// Only these: a look-up without an outcome is a settlement too.
const REFUNDED: &str = r#"refund_consumer_settlements_total{result="refunded"}"#;
const CLAIMED: &str = "refund_consumer_messages_total";

/// Measures and prints the table.
pub(crate) async fn run(args: &RefundArgs, servers: &Servers) -> anyhow::Result<bool> {
    let mut kinds: Vec<(Gateway, u8)> = Vec::new();
    for gateway in &args.gateways {
        kinds.extend(
            args.consumers
                .iter()
                .map(|consumers| (*gateway, *consumers)),
        );
    }
    let mut runs: Vec<Vec<Paid>> = kinds.iter().map(|_| Vec::new()).collect();
    for _ in 0..args.rounds {
        for ((gateway, consumers), of_kind) in kinds.iter().zip(&mut runs) {
            let paid = measure(args, *gateway, *consumers, servers).await?;
            let (label, rate, cells) = (gateway.label(), paid.rate(), paid.cells());
            report::progress(&format!("{label}, {consumers}: {rate:.0}/s | {cells}"));
            of_kind.push(paid);
        }
    }
    let mut lines = Vec::new();
    for ((gateway, consumers), of_kind) in kinds.iter().zip(runs) {
        let (median, low, high) = report::median(of_kind, Paid::rate);
        let (label, rate, cells) = (gateway.label(), median.rate(), median.cells());
        lines.push(format!(
            "| {label} | {consumers} | {rate:.0} ({low:.0} to {high:.0}) | {cells} |"
        ));
    }
    report::table(
        &format!(
            "{} returns, from the first refund of the last consumer to the last refund",
            args.returns
        ),
        "| gateway | consumers | returns/s: median (range) | CPU s per 10,000 returns: consumers / mysqld / Kafka | \
         peak MiB of a consumer | highest lag |",
        &lines,
    );
    Ok(true)
}

async fn measure(
    args: &RefundArgs,
    gateway: Gateway,
    consumers: u8,
    servers: &Servers,
) -> anyhow::Result<Paid> {
    let mut system = System::create().await?;
    // The scan must not claim the backlog before the messages are read.
    let grace = ("INITIATED_GRACE_SECS".to_owned(), "3600".to_owned());
    system.env.extend([grace]);
    let _provider = match gateway {
        Gateway::InProcess => None,
        Gateway::Http => {
            let calls = args.parallel.to_string();
            system
                .env
                .insert("GATEWAY_PARALLEL_CALLS".to_owned(), calls);
            Some(Provider::start(&mut system, &["--delay-ms=50"]).await?)
        }
    };
    let orders: Vec<OrderId> = (1..=i64::from(args.returns)).map(OrderId).collect();
    Writer::connect(&system.db.pool.connect_options(), system.topic_args())
        .await?
        .file(&system.db, &orders)
        .await?;
    let relay = system.start("outbox-relay").await?;
    until("all are in Kafka", DEADLINE, async || {
        Ok(system.count("SELECT COUNT(*) FROM outbox").await? == 0)
    })
    .await?;
    relay.stop(DEADLINE).await?;
    // No offset is committed yet, so the lag is the number of records.
    let records = u64::try_from(checks::lag(&system).await?)?;
    let mut running = Vec::new();
    for _ in 0..consumers {
        running.push(system.start("refund-consumer").await?);
    }
    let paid = watch(&running, u64::from(args.returns), records, servers).await?;
    for consumer in running {
        consumer.stop(DEADLINE).await?;
    }
    let _relay = system.start("outbox-relay").await?;
    system.settled(DEADLINE).await?;
    checks::everything(&system).await?;
    checks::straight_paths(&system).await?;
    system.db.delete().await;
    Ok(paid)
}

/// Measures from the moment at which each consumer has refunded something to the last refund.
pub(crate) async fn watch(
    consumers: &[Program],
    returns: u64,
    records: u64,
    servers: &Servers,
) -> anyhow::Result<Paid> {
    for consumer in consumers {
        until("each has refunded", DEADLINE, async || {
            Ok(consumer.metric_if_any(REFUNDED).await?.unwrap_or(0) > 0)
        })
        .await?;
    }
    let (begun, first) = (Instant::now(), sum(consumers, REFUNDED).await?);
    ensure!(
        first < returns,
        "all returns were refunded before every consumer had started"
    );
    let before = cpu(consumers, servers)?;
    let mut highest_lag = 0;
    while sum(consumers, REFUNDED).await? < returns {
        ensure!(begun.elapsed() < DEADLINE, "not all were refunded");
        let claimed = sum(consumers, CLAIMED).await?;
        highest_lag = highest_lag.max(records.saturating_sub(claimed));
        tokio::time::sleep(SAMPLE).await;
    }
    let (seconds, after) = (begun.elapsed().as_secs_f64(), cpu(consumers, servers)?);
    let mut peak_kib = 0;
    for consumer in consumers {
        peak_kib = peak_kib.max(peak_resident_kib(consumer.pid())?);
    }
    Ok(Paid {
        returns: f64::from(u32::try_from(returns - first)?),
        seconds,
        cpu: std::array::from_fn(|at| after[at] - before[at]),
        peak_mib: peak_kib / 1024,
        highest_lag,
    })
}

/// A counter, over all consumers.
async fn sum(consumers: &[Program], name: &str) -> anyhow::Result<u64> {
    let mut sum = 0;
    for consumer in consumers {
        sum += consumer.metric_if_any(name).await?.unwrap_or(0);
    }
    Ok(sum)
}

/// CPU seconds of the consumers, and of the servers that the local stack started.
fn cpu(consumers: &[Program], servers: &Servers) -> anyhow::Result<[f64; 3]> {
    let of = |pid: Option<u32>| pid.map_or(Ok(0.0), cpu_seconds);
    let mut ours = 0.0;
    for consumer in consumers {
        ours += cpu_seconds(consumer.pid())?;
    }
    Ok([ours, of(servers.mysqld()?)?, of(servers.kafka()?)?])
}
