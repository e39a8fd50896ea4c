//! Streams of events: memory of each, and the time from a COMMIT to the last client that gets the event.

mod listener;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::load::Writer;
use e2e::program::Program;
use hdrhistogram::Histogram;
use shared::domain::event::TopicArgs;
use shared::domain::ids::{OrderId, ReturnId};
use shared::runtime::db::DbArgs;
use shared::test_support::TestDb;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::{sleep, timeout};

use self::listener::{Listener, Received};
use crate::api;
use crate::open_files;
use crate::process::{Pids, Servers, resident_kib};
use crate::report;
use crate::tokens::{Keys, Kind};

#[derive(Debug, clap::Args)]
pub(crate) struct StreamArguments {
    /// Streams open at once, each on a connection of its own.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u16).range(100..=10_000))]
    streams: u16,

    /// Number of returns that they watch; one run for each number.
    #[arg(long, value_delimiter = ',', default_values_t = [5_000, 100])]
    returns: Vec<u16>,

    /// Returns that one transaction changes; those of a run that watches fewer are all changed.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1_000])]
    changes: Vec<u16>,

    /// Transactions of each kind.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    rounds: u16,
}

/// The customer of every return (`e2e::load`).
const CUSTOMER: i64 = 42;
const DEADLINE: Duration = Duration::from_secs(60);
/// How long streams are watched without a change.
const IDLE: Duration = Duration::from_secs(10);
/// Open files besides the streams.
const OTHER_FILES: u64 = 500;

/// Measures and prints the tables; `false` if a stream lost an event or got one twice.
pub(crate) async fn run(args: &StreamArguments, servers: &Servers) -> anyhow::Result<bool> {
    open_files::allow(u64::from(args.streams) + OTHER_FILES)?;
    let (mut idle, mut latency) = (Vec::new(), Vec::new());
    for &returns in &args.returns {
        let mut stage = Stage::open(args, returns, servers).await?;
        idle.push(stage.idle().await?);
        for &changed in &args.changes {
            latency.push(stage.rounds(changed.min(returns), args.rounds).await?);
        }
        stage.api.stop(DEADLINE).await?;
    }
    report::table(
        &format!(
            "{} streams, nothing changes, {} s.",
            args.streams,
            IDLE.as_secs()
        ),
        "| returns watched | resident api KiB: without, with streams | KiB per stream | cores: api / mysqld | one look, mean ms |",
        &idle,
    );
    report::table(
        &format!(
            "{} streams, {} transactions of each kind, milliseconds from COMMIT.",
            args.streams, args.rounds
        ),
        "| returns watched | changed by one transaction | clients that hear | last client p50 | p99 | max | each client p50 | p99 |",
        &latency,
    );
    // A gap or a repeat ends the run with an error.
    Ok(true)
}

/// A running api with its streams open.
struct Stage {
    api: Program,
    pids: Pids,
    writer: Writer,
    returns: Vec<ReturnId>,
    listeners: Vec<Listener>,
    received: UnboundedReceiver<Received>,
    without_kib: u64,
    _db: TestDb,
    _keys: Keys,
}

impl Stage {
    async fn open(args: &StreamArguments, returns: u16, servers: &Servers) -> anyhow::Result<Self> {
        let (db, keys) = (TestDb::create().await, Keys::generate()?);
        let options = DbArgs {
            database_url: db.url().to_owned().into(),
            database_max_connections: 1,
        }
        .options()
        .map_err(anyhow::Error::msg)?;
        let mut writer = Writer::connect(&options, topics()).await?;
        let orders: Vec<OrderId> = (1..=i64::from(returns)).map(OrderId).collect();
        let returns = writer.file(&db, &orders).await?;
        let more = [("STREAMS_PER_CALLER", "10000".to_owned())];
        let api = api::start(&db, &keys, &more).await?;
        let pids = Pids {
            api: api.pid(),
            mysqld: servers.mysqld()?,
        };
        let without_kib = resident_kib(pids.api)?;
        report::progress(&format!("opening {} streams", args.streams));
        let token = keys.mint(Kind::JwtEdDsa, CUSTOMER, 0)?;
        let (reports, mut received) = mpsc::unbounded_channel();
        let mut listeners = Vec::new();
        for (number, id) in (0..usize::from(args.streams)).zip(returns.iter().cycle()) {
            listener::listen(api.api_address()?, *id, &token, number, reports.clone()).await?;
            let first = timeout(DEADLINE, received.recv())
                .await?
                .context("a first event")?;
            listeners.push(Listener {
                id: *id,
                seq: first.seq,
            });
        }
        Ok(Self {
            api,
            pids,
            writer,
            returns,
            listeners,
            received,
            without_kib,
            _db: db,
            _keys: keys,
        })
    }

    async fn idle(&self) -> anyhow::Result<String> {
        let (cpu, polls) = (self.pids.cpu()?, self.polls().await?);
        sleep(IDLE).await;
        let used = self.pids.cpu()?.cores_since(&cpu, IDLE.as_secs_f64());
        let now = self.polls().await?;
        let with_kib = resident_kib(self.pids.api)?;
        let streams = f64::from(u32::try_from(self.listeners.len())?);
        let grown = f64::from(u32::try_from(with_kib.saturating_sub(self.without_kib))?);
        Ok(format!(
            "| {} | {}, {with_kib} | {:.1} | {:.2} / {} | {:.1} |",
            self.returns.len(),
            self.without_kib,
            grown / streams,
            used.api,
            used.mysqld
                .map_or_else(|| "?".to_owned(), |cores| format!("{cores:.2}")),
            (now.seconds - polls.seconds) / (now.count - polls.count) * 1000.0,
        ))
    }

    async fn polls(&self) -> anyhow::Result<Polls> {
        let page = self.api.ops_page("/metrics").await?;
        let value = |name: &str| -> anyhow::Result<f64> {
            let line = page.lines().find_map(|line| line.strip_prefix(name));
            Ok(line.context("the metric")?.trim().parse()?)
        };
        Ok(Polls {
            seconds: value("streams_look_seconds_sum ")?,
            count: value("streams_look_seconds_count ")?,
        })
    }

    async fn rounds(&mut self, changed: u16, rounds: u16) -> anyhow::Result<String> {
        report::progress(&format!("{rounds} transactions that change {changed}"));
        let (mut last, mut each) = (Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?);
        let mut hear = 0;
        for _ in 0..rounds {
            // At a random moment between two polls.
            sleep(Duration::from_millis(rand::random_range(300..600))).await;
            let changes: Vec<ReturnId> = self.returns[..usize::from(changed)].to_vec();
            self.writer.change(&changes, 1).await?;
            let committed = Instant::now();
            hear = self
                .listeners
                .iter()
                .filter(|listener| changes.binary_search(&listener.id).is_ok())
                .count();
            let mut slowest = Duration::ZERO;
            for _ in 0..hear {
                let received = timeout(DEADLINE, self.received.recv())
                    .await?
                    .context("an event")?;
                let listener = &mut self.listeners[received.stream];
                listener.seq += 1;
                ensure!(
                    received.seq == listener.seq,
                    "received {} for {}",
                    received.seq,
                    listener.seq
                );
                let took = received.at.saturating_duration_since(committed);
                slowest = slowest.max(took);
                each.record(micros(took))?;
            }
            last.record(micros(slowest))?;
        }
        let millis = |times: &Histogram<u64>, quantile| {
            let micros = times.value_at_quantile(quantile);
            f64::from(u32::try_from(micros).unwrap_or(u32::MAX)) / 1000.0
        };
        Ok(format!(
            "| {} | {changed} | {hear} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
            self.returns.len(),
            millis(&last, 0.5),
            millis(&last, 0.99),
            millis(&last, 1.0),
            millis(&each, 0.5),
            millis(&each, 0.99),
        ))
    }
}

/// Polls of the watched returns until now.
struct Polls {
    seconds: f64,
    count: f64,
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

fn topics() -> TopicArgs {
    TopicArgs {
        topic_returns: "order.returns".to_owned(),
        topic_status: "order.returns.status".to_owned(),
    }
}
