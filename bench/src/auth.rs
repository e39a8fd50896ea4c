//! Tokens: the CPU cost of one, and whether valid tokens of many callers are ever refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, StatusCode};
use shared::auth::{AuthArgs, Operation, Policy, Request as Asked, Verifier};
use shared::domain::ids::{CustomerId, ReturnId};
use shared::test_support::TestDb;

use crate::report;
use crate::tokens::{Keys, Kind};
use crate::{api, connection};

#[derive(Debug, clap::Args)]
pub(crate) struct AuthArguments {
    /// Parallel callers, each with its own token and connection; the kinds of tokens take turns.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(4..=1000))]
    callers: u16,

    /// Seconds of the run.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,

    /// Tokens of each kind that this process verifies and decides.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    repeats: u32,
}

const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Measures both and prints two tables; `false` if a valid token was refused.
pub(crate) async fn run(args: &AuthArguments) -> anyhow::Result<bool> {
    let keys = Keys::generate()?;
    let costs = Kind::ALL
        .into_iter()
        .map(|kind| cost(&keys, kind, args.repeats))
        .collect::<anyhow::Result<Vec<_>>>()?;
    report::table(
        &format!(
            "One token in the process, {} times each, microseconds of wall-clock time, one thread.",
            args.repeats
        ),
        "| token | characters | read and verified p50 | p99 | policy decision p50 | p99 |",
        &costs,
    );
    let crowd = crowd(args, keys).await?;
    let rows: Vec<String> = crowd.iter().map(Calls::row).collect();
    let (all, refused) = crowd.iter().fold((0, 0), |(all, refused), calls| {
        (all + calls.latency.len(), refused + calls.refused)
    });
    report::table(
        &format!(
            "{} callers for {} s, `GET /returns/{{id}}` of their own return, milliseconds: {all} requests, {refused} refused.",
            args.callers, args.seconds
        ),
        "| token | requests | refused | p50 | p99 |",
        &rows,
    );
    Ok(refused == 0)
}

fn cost(keys: &Keys, kind: Kind, repeats: u32) -> anyhow::Result<String> {
    let args = AuthArgs {
        auth_keys_file: keys.file().to_owned(),
        auth_issuer: "returns-dev".to_owned(),
        auth_audience: "returns-api".to_owned(),
        auth_leeway_secs: 30,
        auth_token_max_bytes: 4096,
    };
    let (verifier, policy) = (Verifier::load(&args)?, Policy::new(&args));
    let token = keys.mint(kind, 42, 7)?;
    let asked = Asked::about(Operation::ReturnsRead, ReturnId(7), Some(CustomerId(42)));
    let (mut reading, mut judging) = (Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?);
    for _ in 0..repeats {
        let began = Instant::now();
        let verified = verifier.verify(&token)?;
        reading.record(nanos(began))?;
        let began = Instant::now();
        policy.decide(&verified, &asked)?;
        judging.record(nanos(began))?;
    }
    let micros = |times: &Histogram<u64>, quantile| {
        let nanos = u32::try_from(times.value_at_quantile(quantile)).unwrap_or(u32::MAX);
        format!("{:.0}", f64::from(nanos) / 1000.0)
    };
    Ok(format!(
        "| {} | {} | {} | {} | {} | {} |",
        kind.name(),
        token.len(),
        micros(&reading, 0.5),
        micros(&reading, 0.99),
        micros(&judging, 0.5),
        micros(&judging, 0.99)
    ))
}

fn nanos(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The results of the callers with one kind of token.
struct Calls {
    kind: Kind,
    /// Microseconds.
    latency: Histogram<u64>,
    refused: u64,
}

impl Calls {
    fn new(kind: Kind) -> anyhow::Result<Self> {
        Ok(Self {
            kind,
            latency: Histogram::new(3)?,
            refused: 0,
        })
    }

    fn row(&self) -> String {
        let millis = |quantile| {
            let micros = self.latency.value_at_quantile(quantile);
            f64::from(u32::try_from(micros).unwrap_or(u32::MAX)) / 1000.0
        };
        format!(
            "| {} | {} | {} | {:.1} | {:.1} |",
            self.kind.name(),
            self.latency.len(),
            self.refused,
            millis(0.5),
            millis(0.99)
        )
    }
}

async fn crowd(args: &AuthArguments, keys: Keys) -> anyhow::Result<Vec<Calls>> {
    let db = TestDb::create().await;
    let api = api::start(&db, &keys, &[]).await?;
    let address = api.api_address()?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for (number, kind) in (1..=i64::from(args.callers)).zip(Kind::ALL.into_iter().cycle()) {
        db.seed_orders(number, 1, CustomerId(number)).await;
        let client = e2e::client::Client::new(&keys.mint(Kind::JwtEdDsa, number, 0)?);
        let filed = client.file(address, number, None).await?;
        let id = filed.return_id().context("a return of the caller's own")?;
        let caller = Caller::connect(address, kind, id, &keys.mint(kind, number, id)?).await?;
        callers.push(caller);
    }
    let tasks: Vec<_> = callers
        .into_iter()
        .map(|caller| tokio::spawn(caller.call_until(Arc::clone(&stop))))
        .collect();
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let mut all = Kind::ALL
        .into_iter()
        .map(Calls::new)
        .collect::<anyhow::Result<Vec<_>>>()?;
    for task in tasks {
        let calls = task.await??;
        let sum = all.iter_mut().find(|sum| sum.kind == calls.kind);
        let sum = sum.context("a kind of token")?;
        sum.latency.add(&calls.latency)?;
        sum.refused += calls.refused;
    }
    api.stop(STOP_DEADLINE).await?;
    Ok(all)
}

/// One connection that reads the same return repeatedly.
struct Caller {
    kind: Kind,
    sender: SendRequest<Empty<Bytes>>,
    path: String,
    authorization: String,
}

impl Caller {
    async fn connect(
        address: SocketAddr,
        kind: Kind,
        id: i64,
        token: &str,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            kind,
            sender: connection::open(address).await?,
            path: format!("/returns/{id}"),
            authorization: format!("Bearer {token}"),
        })
    }

    async fn call_until(mut self, stop: Arc<AtomicBool>) -> anyhow::Result<Calls> {
        let mut calls = Calls::new(self.kind)?;
        while !stop.load(Ordering::Relaxed) {
            let request = Request::get(&self.path)
                .header("host", "localhost")
                .header("authorization", &self.authorization)
                .body(Empty::new())?;
            let began = Instant::now();
            let response = self.sender.send_request(request).await?;
            let status = response.status();
            response.into_body().collect().await?;
            calls.latency.record(nanos(began) / 1000)?;
            if status != StatusCode::OK {
                ensure!(calls.refused < 1000, "refused again and again: {status}");
                calls.refused += 1;
            }
        }
        Ok(calls)
    }
}
