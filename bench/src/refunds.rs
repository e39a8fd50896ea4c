//! The refund consumer: how fast it pays what waits in Kafka, with the whole audit trail and outbox, and every table
//! checked afterwards.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::load::Writer;
use e2e::program::Program;
use e2e::provider::Provider;
use e2e::system::System;
use e2e::{checks, until};
use shared::ids::OrderId;

use crate::process::{Servers, cpu_seconds, peak_resident_kib};
use crate::report;

#[derive(Debug, clap::Args)]
pub(crate) struct RefundArgs {
    /// Who pays.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Gateway::InProcess, Gateway::Http])]
    gateways: Vec<Gateway>,

    /// Runs of each kind, in turn; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=99))]
    rounds: u8,

    /// Returns that wait.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    returns: u32,

    /// Calls at the same time through HTTP: 64 calls of 50 ms cannot be more than 1,280 a second.
    #[arg(long, default_value_t = 512)]
    parallel: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Gateway {
    /// The simulated gateway, which answers at once.
    InProcess,
    /// `returnsctl dev-gateway`, which answers after 50 ms.
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

struct Paid {
    returns: f64,
    seconds: f64,
    /// CPU seconds of consumer, mysqld and Kafka.
    cpu: [f64; 3],
    peak_mib: u64,
    /// The most records at any sample that were in Kafka and not claimed.
    most_behind: u64,
}

impl Paid {
    fn rate(&self) -> f64 {
        self.returns / self.seconds
    }

    fn cells(&self) -> String {
        let cpu = self
            .cpu
            .map(|seconds| format!("{:.2}", seconds / self.returns * 10_000.0));
        let behind = self.most_behind;
        format!("{} | {} | {behind}", cpu.join(" / "), self.peak_mib)
    }
}

const SAMPLE: Duration = Duration::from_millis(50);
const DEADLINE: Duration = Duration::from_secs(600);
/// A look-up that tells nothing is a settlement too, but pays nobody.
const REFUNDED: &str = r#"refund_consumer_settlements_total{result="refunded"}"#;
const CLAIMED: &str = "refund_consumer_messages_total";

/// Measures and prints the table.
pub(crate) async fn run(args: &RefundArgs, servers: &Servers) -> anyhow::Result<bool> {
    let mut lines = Vec::new();
    let mut runs: Vec<Vec<Paid>> = args.gateways.iter().map(|_| Vec::new()).collect();
    for _ in 0..args.rounds {
        for (gateway, of_kind) in args.gateways.iter().zip(&mut runs) {
            let paid = measure(args, *gateway, servers).await?;
            let (rate, cells) = (paid.rate(), paid.cells());
            report::progress(&format!("{}: {rate:.0}/s | {cells}", gateway.label()));
            of_kind.push(paid);
        }
    }
    for (gateway, of_kind) in args.gateways.iter().zip(runs) {
        let (median, low, high) = report::median(of_kind, Paid::rate);
        let (rate, cells) = (median.rate(), median.cells());
        let label = gateway.label();
        lines.push(format!(
            "| {label} | {rate:.0} ({low:.0} to {high:.0}) | {cells} |"
        ));
    }
    report::table(
        &format!(
            "{} returns, from the first refund to the last",
            args.returns
        ),
        "| gateway | returns/s: median (range) | CPU s per 10,000 returns: consumer / mysqld / Kafka | peak MiB | \
         most records behind |",
        &lines,
    );
    Ok(true)
}

async fn measure(args: &RefundArgs, gateway: Gateway, servers: &Servers) -> anyhow::Result<Paid> {
    let mut system = System::create().await?;
    // The whole-system tests shorten them; here the defaults are measured.
    for shortened in ["CALL_DEADLINE_MS", "GATEWAY_CALL_TIMEOUT_MS"] {
        system.env.remove(shortened);
    }
    // What waits in Kafka for longer than the grace is to be paid by way of Kafka all the same.
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
    // Nothing is committed yet.
    let records = u64::try_from(checks::messages_behind(&system).await?)?;
    let consumer = system.start("refund-consumer").await?;
    let paid = watch(&consumer, u64::from(args.returns), records, servers).await?;
    consumer.stop(DEADLINE).await?;
    let _relay = system.start("outbox-relay").await?;
    system.settled(DEADLINE).await?;
    checks::everything(&system).await?;
    checks::straight_paths(&system).await?;
    Ok(paid)
}

/// From the first refund to the last.
async fn watch(
    consumer: &Program,
    returns: u64,
    records: u64,
    servers: &Servers,
) -> anyhow::Result<Paid> {
    let mut begun = Instant::now();
    let mut first = 0;
    while first == 0 {
        begun = Instant::now();
        tokio::time::sleep(SAMPLE / 10).await;
        first = consumer.metric(REFUNDED).await?;
    }
    let before = cpu(consumer, servers)?;
    let mut most_behind = 0;
    while consumer.metric(REFUNDED).await? < returns {
        ensure!(begun.elapsed() < DEADLINE, "not all were refunded");
        let claimed = consumer.metric_if_any(CLAIMED).await?.unwrap_or(0);
        most_behind = most_behind.max(records.saturating_sub(claimed));
        tokio::time::sleep(SAMPLE).await;
    }
    let (seconds, after) = (begun.elapsed().as_secs_f64(), cpu(consumer, servers)?);
    Ok(Paid {
        returns: f64::from(u32::try_from(returns - first)?),
        seconds,
        cpu: std::array::from_fn(|at| after[at] - before[at]),
        peak_mib: peak_resident_kib(consumer.pid())? / 1024,
        most_behind,
    })
}

/// CPU seconds of the consumer, and of the servers that the local stack started.
fn cpu(consumer: &Program, servers: &Servers) -> anyhow::Result<[f64; 3]> {
    let of = |pid: Option<u32>| pid.map_or(Ok(0.0), cpu_seconds);
    Ok([
        cpu_seconds(consumer.pid())?,
        of(servers.mysqld()?)?,
        of(servers.kafka()?)?,
    ])
}
