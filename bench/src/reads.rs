//! Reading: the same return repeatedly, with and without its `ETag`, and pages of the list by each filter at several depths.

mod plan;
mod seed;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use e2e::program::Program;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, StatusCode};
use rand::RngExt;
use shared::test_support::TestDb;

use self::seed::{CUSTOMER, Place};
use crate::process::{self, Servers};
use crate::report;
use crate::tokens::Keys;
use crate::{api, connection};

#[derive(Debug, clap::Args)]
pub(crate) struct ReadArgs {
    /// Returns in the table.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(i64).range(1000..=10_000_000))]
    returns: i64,

    /// Connections that read single returns.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,

    /// Seconds that each run reads single returns.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// Runs of each kind, in turn; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99))]
    rounds: u8,

    /// Pages read for each filter and depth, one after the other.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    pages: u32,
}

const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Measures both and prints two tables; `false` if a response was wrong.
pub(crate) async fn run(args: &ReadArgs, servers: &Servers) -> anyhow::Result<bool> {
    let db = TestDb::create().await;
    report::progress(&format!("seeding {} returns", args.returns));
    seed::fill(&db, args.returns).await?;
    let keys = Keys::generate()?;
    let api = api::start(&db, &keys, &[]).await?;
    let stage = Stage {
        db: &db,
        api: &api,
        token: Arc::from(format!("Bearer {}", keys.admin()?)),
        mysqld: servers.mysqld()?,
    };
    let single = single_returns(args, &stage).await?;
    report::table(
        &format!(
            "`GET /returns/{{id}}` of a random one of {} returns, {} connections, {} s, median of {} runs.",
            args.returns, args.connections, args.seconds, args.rounds
        ),
        "| answer | requests/s (lowest to highest) | p50 ms | p99 ms | cores: generator, api, mysqld |",
        &single,
    );
    let pages = pages(args, &stage).await?;
    report::table(
        &format!(
            "`GET /returns`, {} returns, pages of 50, {} of each, one after the other, milliseconds.",
            args.returns, args.pages
        ),
        "| filter | depth | p50 | p99 | longest | EXPLAIN: index (access; extra) |",
        &pages,
    );
    api.stop(STOP_DEADLINE).await?;
    Ok(true)
}

/// The request and its caller.
struct Stage<'a> {
    db: &'a TestDb,
    api: &'a Program,
    token: Arc<str>,
    mysqld: Option<u32>,
}

/// One run of one kind.
struct Run {
    per_second: f64,
    /// Microseconds.
    latency: Histogram<u64>,
    cores: process::CpuSeconds,
}

async fn single_returns(args: &ReadArgs, stage: &Stage<'_>) -> anyhow::Result<Vec<String>> {
    let kinds = [
        (StatusCode::OK, None),
        (StatusCode::NOT_MODIFIED, Some("\"1\"")),
    ];
    let mut runs = [const { Vec::new() }; 2];
    for _ in 0..args.rounds {
        for (kind, runs) in kinds.iter().zip(&mut runs) {
            runs.push(read_returns(args, stage, *kind).await?);
        }
    }
    let rows = kinds.iter().zip(runs).map(|((status, _), runs)| {
        let (run, low, high) = report::median(runs, |run| run.per_second);
        format!(
            "| {} | {:.0} ({low:.0} to {high:.0}) | {} | {} | {:.2}, {:.2}, {} |",
            status.as_u16(),
            run.per_second,
            millis(&run.latency, 0.5),
            millis(&run.latency, 0.99),
            run.cores.generator,
            run.cores.api,
            run.cores
                .mysqld
                .map_or_else(|| "?".to_owned(), |cores| format!("{cores:.2}"))
        )
    });
    Ok(rows.collect())
}

async fn read_returns(
    args: &ReadArgs,
    stage: &Stage<'_>,
    (expected, tag): (StatusCode, Option<&'static str>),
) -> anyhow::Result<Run> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for _ in 0..args.connections {
        let reader = Reader {
            sender: connection::open(stage.api.api_address()?).await?,
            token: Arc::clone(&stage.token),
            latency: Histogram::new(3)?,
        };
        readers.push(reader);
    }
    let pids = process::Pids {
        api: stage.api.pid(),
        mysqld: stage.mysqld,
    };
    let (before, began) = (pids.cpu()?, Instant::now());
    let tasks: Vec<_> = readers
        .into_iter()
        .map(|mut reader| {
            let (stop, returns) = (Arc::clone(&stop), args.returns);
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let id = rand::rng().random_range(1..=returns);
                    reader
                        .read(&format!("/returns/{id}"), tag, expected)
                        .await?;
                }
                anyhow::Ok(reader.latency)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let mut latency = Histogram::new(3)?;
    for task in tasks {
        latency.add(&task.await??)?;
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(Run {
        per_second: f64::from(u32::try_from(latency.len())?) / seconds,
        cores: pids.cpu()?.cores_since(&before, seconds),
        latency,
    })
}

/// The first page, a middle page and a late page of each filter.
async fn pages(args: &ReadArgs, stage: &Stage<'_>) -> anyhow::Result<Vec<String>> {
    let order = args.returns / 2;
    let filters = [
        String::new(),
        "status=refunded".to_owned(),
        "status=refund_failed".to_owned(),
        format!("customer_id={CUSTOMER}"),
        format!("customer_id={CUSTOMER}&status=refunded"),
        format!("order_id={order}"),
        "created_from=2025-06-01T00:00:00Z&created_before=2025-07-01T00:00:00Z".to_owned(),
        "status=refunded&created_before=2025-07-01T00:00:00Z".to_owned(),
    ];
    let mut rows = Vec::new();
    for filter in &filters {
        for (name, place) in [
            ("first page", None),
            ("half", Some(0.5)),
            ("end", Some(0.001)),
        ] {
            let mut reader = Reader {
                sender: connection::open(stage.api.api_address()?).await?,
                token: Arc::clone(&stage.token),
                latency: Histogram::new(3)?,
            };
            let path = || {
                let cursor = place.map(|share| Place::about(args.returns, share).cursor());
                let cursor = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
                format!("/returns?{filter}{cursor}").replace("?&", "?")
            };
            let explained = plan::of(stage.db, "list_returns", async {
                reader.read(&path(), None, StatusCode::OK).await
            });
            let plan = explained.await?;
            reader.latency.reset();
            for _ in 0..args.pages {
                reader.read(&path(), None, StatusCode::OK).await?;
            }
            let shown = if filter.is_empty() { "none" } else { filter };
            let row = format!(
                "| `{shown}` | {name} | {} | {} | {} | {plan} |",
                millis(&reader.latency, 0.5),
                millis(&reader.latency, 0.99),
                millis(&reader.latency, 1.0)
            );
            report::progress(&row);
            rows.push(row);
        }
    }
    Ok(rows)
}

fn millis(latency: &Histogram<u64>, quantile: f64) -> String {
    let micros = latency.value_at_quantile(quantile);
    let micros = f64::from(u32::try_from(micros).unwrap_or(u32::MAX));
    format!("{:.2}", micros / 1000.0)
}

/// One connection.
struct Reader {
    sender: SendRequest<Empty<Bytes>>,
    token: Arc<str>,
    /// Microseconds.
    latency: Histogram<u64>,
}

impl Reader {
    async fn read(
        &mut self,
        path: &str,
        tag: Option<&str>,
        expected: StatusCode,
    ) -> anyhow::Result<()> {
        let mut request = Request::get(path)
            .header("host", "localhost")
            .header("authorization", &*self.token);
        if let Some(tag) = tag {
            request = request.header("if-none-match", tag);
        }
        self.sender.ready().await?;
        let began = Instant::now();
        let response = self
            .sender
            .send_request(request.body(Empty::new())?)
            .await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        self.latency
            .record(u64::try_from(began.elapsed().as_micros()).context("hours")?)?;
        ensure!(status == expected, "{path}: {status} {body:?}");
        Ok(())
    }
}
