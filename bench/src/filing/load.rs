//! A closed loop: each connection sends its next filing after the response to the last one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::SendRequest;
use shared::domain::ids::CustomerId;
use shared::test_support::TestDb;

use crate::connection;
use crate::process::{CpuSeconds, Pids};
use crate::tokens::{Keys, Kind};

/// The orders of the customer of one connection.
pub(crate) struct Orders {
    first: i64,
    per_connection: i64,
    connections: i64,
}

/// More filings per second than a machine of this size can do, so there are always enough orders.
const FILINGS_PER_SECOND_MAX: i64 = 30_000;

impl Orders {
    pub(crate) async fn seed(db: &TestDb, connections: usize, seconds: u64) -> Self {
        Self::seed_from(db, 1, connections, seconds).await
    }

    /// The orders from this one on.
    pub(crate) async fn seed_from(
        db: &TestDb,
        first: i64,
        connections: usize,
        seconds: u64,
    ) -> Self {
        let connections = i64::try_from(connections).expect("a small number");
        let seconds = i64::try_from(seconds).expect("a small number");
        // A lone connection is bound by round trips, far below the whole machine.
        let share = (FILINGS_PER_SECOND_MAX * seconds / connections).min(3_000 * seconds);
        for connection in 0..connections {
            let of_connection = first + connection * share;
            db.seed_orders(of_connection, share, CustomerId(1 + connection))
                .await;
        }
        Self {
            first,
            per_connection: share,
            connections,
        }
    }

    /// The first order after these.
    pub(crate) fn end(&self) -> i64 {
        self.first + self.connections * self.per_connection
    }
}

/// The result of one run.
pub(crate) struct Measured {
    pub(crate) seconds: f64,
    /// The latencies of the responses within the measured time, in microseconds.
    pub(crate) latency: Histogram<u64>,
    /// All responses with 201, including the warm-up.
    pub(crate) filed: u64,
    pub(crate) wrong: u64,
    pub(crate) cores: CpuSeconds,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    token: String,
    next_order: i64,
    last_order: i64,
}

pub(crate) struct Load {
    connections: Vec<Connection>,
}

impl Load {
    pub(crate) async fn connect(
        address: SocketAddr,
        keys: &Keys,
        orders: Orders,
    ) -> anyhow::Result<Self> {
        let mut connections = Vec::new();
        for at in 0..orders.connections {
            let first = orders.first + at * orders.per_connection;
            connections.push(Connection {
                sender: connection::open(address).await?,
                token: format!("Bearer {}", keys.mint(Kind::JwtEdDsa, 1 + at, 0)?),
                next_order: first,
                last_order: first + orders.per_connection,
            });
        }
        Ok(Self { connections })
    }

    pub(crate) async fn run(
        self,
        warm_up: Duration,
        measure: Duration,
        pids: &Pids,
    ) -> anyhow::Result<Measured> {
        let start = Instant::now();
        let window = start + warm_up..start + warm_up + measure;
        let stop = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> = self
            .connections
            .into_iter()
            .map(|connection| {
                tokio::spawn(connection.file_until(Arc::clone(&stop), window.clone()))
            })
            .collect();
        tokio::time::sleep_until(window.start.into()).await;
        let before = pids.cpu()?;
        tokio::time::sleep_until(window.end.into()).await;
        let after = pids.cpu()?;
        stop.store(true, Ordering::Relaxed);
        let seconds = measure.as_secs_f64();
        let mut total = Measured {
            seconds,
            latency: Histogram::new(3)?,
            filed: 0,
            wrong: 0,
            cores: after.cores_since(&before, seconds),
        };
        for task in tasks {
            let part = task.await??;
            total.latency.add(&part.latency)?;
            total.filed += part.filed;
            total.wrong += part.wrong;
        }
        Ok(total)
    }
}

struct Part {
    latency: Histogram<u64>,
    filed: u64,
    wrong: u64,
}

impl Connection {
    async fn file_until(
        mut self,
        stop: Arc<AtomicBool>,
        window: std::ops::Range<Instant>,
    ) -> anyhow::Result<Part> {
        let mut part = Part {
            latency: Histogram::new(3)?,
            filed: 0,
            wrong: 0,
        };
        while !stop.load(Ordering::Relaxed) {
            ensure!(
                self.next_order < self.last_order,
                "out of orders: seed more"
            );
            let sent = Instant::now();
            let good = self.file_one().await?;
            let answered = Instant::now();
            if good {
                part.filed += 1;
            } else {
                part.wrong += 1;
            }
            if window.contains(&answered) {
                let micros = u64::try_from((answered - sent).as_micros())?;
                part.latency.record(micros.max(1))?;
            }
        }
        Ok(part)
    }

    /// Files the next order; returns whether the response was 201.
    async fn file_one(&mut self) -> anyhow::Result<bool> {
        let order = self.next_order;
        self.next_order += 1;
        let request = Request::post("/returns")
            .header("host", "localhost")
            .header("authorization", &self.token)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(format!(
                r#"{{"order_id":{order},"reason":"does not fit"}}"#
            ))))?;
        self.sender.ready().await.context("connection lost")?;
        let response = self
            .sender
            .send_request(request)
            .await
            .context("no answer")?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok(status == 201 && body.ends_with(br#","status":"initiated"}"#))
    }
}
