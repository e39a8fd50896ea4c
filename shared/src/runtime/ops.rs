//! `/livez`, `/readyz` and `/metrics`, on a port of their own that is not for the public.
//!
//! Live: the process responds. Ready: it is not stopping, and MySQL responds within a second. Kafka is left out on
//! purpose: without Kafka filing goes on, and taking the api out of service would be the outage.
//! `/readyz?verbose` adds one line per check with its value and its limit. Only MySQL and stopping decide readiness; a
//! program's own [`Check`]s are shown and change nothing. MySQL is asked once a second at most, however many ask.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, iter};

use hyper_util::service::TowerToHyperService;
use prometheus::{Encoder, Registry, TextEncoder};
use sqlx::Connection;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use warp::Filter;
use warp::http::{Response, StatusCode};

use crate::runtime::db::{Database, DbError};
use crate::runtime::http_server::{self, ConnectionMetrics, Limits};

/// Where the operator's endpoints listen.
#[derive(Debug, Clone, clap::Args)]
pub struct OpsArgs {
    /// Address of `/livez`, `/readyz` and `/metrics`. Keep it private. Port 0 takes a free port, which the start line
    /// shows; `healthcheck` needs a fixed one.
    #[arg(long, env = "OPS_LISTEN", default_value = "127.0.0.1:0")]
    pub ops_listen: SocketAddr,
}

const PING_DEADLINE: Duration = Duration::from_secs(1);
const LIMITS: Limits = Limits {
    max_connections: 64,
    header_timeout: Duration::from_secs(5),
    write_timeout: Duration::from_secs(5),
    drain: Duration::from_secs(1),
};

/// One line of `/readyz?verbose`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Unit included: `outbox_rows`, `mysql_answer_ms`.
    pub name: &'static str,
    pub value: String,
    pub limit: String,
    /// The value is beyond the limit.
    pub over: bool,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.over { "over" } else { "ok" };
        let Self {
            name, value, limit, ..
        } = self;
        write!(f, "{verdict} {name} {value}, limit {limit}")
    }
}

/// What `/readyz` looks at: MySQL, and what a program adds for its operators to read.
#[derive(Clone)]
pub struct Checks {
    readiness: Readiness,
    more: Arc<dyn Fn() -> Vec<Check> + Send + Sync>,
}

#[derive(Clone)]
enum Readiness {
    /// As MySQL responds.
    Mysql {
        db: Database,
        answer: Arc<SharedAnswer<Option<Duration>>>,
    },
    /// Not yet, for this reason.
    Starting(watch::Receiver<String>),
}

impl Checks {
    /// Of a program that is not ready yet, with the reason.
    pub fn starting(reason: watch::Receiver<String>) -> Self {
        Self {
            readiness: Readiness::Starting(reason),
            more: Arc::new(Vec::new),
        }
    }

    /// With checks of the program's own. `more` is called per request, so it only reads what is known already.
    pub fn with(db: &Database, more: impl Fn() -> Vec<Check> + Send + Sync + 'static) -> Self {
        Self {
            readiness: Readiness::Mysql {
                // Connections of its own: a busy program is no reason to take it out of service.
                db: db.separate(2).acquire_timeout(PING_DEADLINE),
                answer: Arc::default(),
            },
            more: Arc::new(more),
        }
    }
}

impl From<&Database> for Checks {
    fn from(db: &Database) -> Self {
        Self::with(db, Vec::new)
    }
}

impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checks").finish_non_exhaustive()
    }
}

/// Serves until `quit`, with readiness off from `stopping` on.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    checks: Checks,
    stopping: CancellationToken,
    quit: CancellationToken,
) {
    let live = warp::path!("livez").map(|| text(StatusCode::OK, "ok"));
    let ready = warp::path!("readyz")
        .and(verbose())
        .then(move |verbose| readiness(checks.clone(), stopping.clone(), verbose));
    let metrics = warp::path!("metrics").map(move || exposition(&registry));
    // HEAD is GET without a body, which the server leaves out: some platforms probe with it.
    let reads = warp::get().or(warp::head()).unify();
    let routes = reads
        .and(live.or(ready).unify().or(metrics).unify())
        .recover(|_| async {
            Ok::<_, Infallible>(text(
                StatusCode::NOT_FOUND,
                "not found: /livez, /readyz, /metrics",
            ))
        });
    let service = TowerToHyperService::new(warp::service(routes));
    http_server::serve(
        listener,
        service,
        LIMITS,
        ConnectionMetrics::default(),
        quit,
    )
    .await;
}

/// Asks `/livez` of the program at `addr`, for `healthcheck` sub-commands; `false` also without a response.
pub fn healthcheck(addr: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&addr, PING_DEADLINE)?;
        stream.set_read_timeout(Some(PING_DEADLINE))?;
        stream.set_write_timeout(Some(PING_DEADLINE))?;
        let request = format!("GET /livez HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(&status == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

/// Whether the query asks for every check: `?verbose` or `?verbose=…`. Other parameters are ignored.
fn verbose() -> impl Filter<Extract = (bool,), Error = Infallible> + Copy {
    let asked = |query: String| {
        query
            .split('&')
            .any(|part| part == "verbose" || part.starts_with("verbose="))
    };
    warp::query::raw()
        .map(asked)
        .or(warp::any().map(|| false))
        .unify()
}

async fn readiness(checks: Checks, stopping: CancellationToken, verbose: bool) -> Response<String> {
    let stopping = stopping.is_cancelled();
    let (db, answer) = match &checks.readiness {
        Readiness::Mysql { db, answer } => (db, answer),
        Readiness::Starting(reason) => {
            return text(StatusCode::SERVICE_UNAVAILABLE, &reason.borrow().clone());
        }
    };
    // A stopping program is not ready whatever MySQL says, so only a verbose request waits for MySQL.
    let took = if stopping && !verbose {
        None
    } else {
        answer.get(async || ping(db).await).await
    };
    let (status, verdict) = match took {
        _ if stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        Some(_) => (StatusCode::OK, "ready"),
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            "MySQL does not answer within 1 s",
        ),
    };
    if !verbose {
        return text(status, verdict);
    }
    let lines = iter::once(verdict.to_owned())
        .chain(iter::once(mysql_check(took).to_string()))
        .chain((checks.more)().into_iter().map(|check| check.to_string()));
    text(status, &lines.collect::<Vec<_>>().join("\n"))
}

/// An answer that everybody who asks within a second gets. Who asks meanwhile waits for the one that is on its way.
#[derive(Debug, Default)]
struct SharedAnswer<T>(Mutex<Option<(Instant, T)>>);

const SHARED_FOR: Duration = Duration::from_secs(1);

impl<T: Copy> SharedAnswer<T> {
    async fn get(&self, ask: impl AsyncFnOnce() -> T) -> T {
        let mut last = self.0.lock().await;
        if let Some((at, answer)) = *last
            && at.elapsed() < SHARED_FOR
        {
            return answer;
        }
        let answer = ask().await;
        *last = Some((Instant::now(), answer));
        answer
    }
}

/// How long MySQL took, or `None` if it did not respond in time.
async fn ping(db: &Database) -> Option<Duration> {
    let asked = Instant::now();
    let ping = db.run("readiness", PING_DEADLINE, |conn| {
        Box::pin(async { conn.ping().await.map_err(DbError::from) })
    });
    // One limit for the wait for a connection and the ping.
    let pinged = tokio::time::timeout(PING_DEADLINE, ping).await;
    matches!(pinged, Ok(Ok(()))).then(|| asked.elapsed())
}

fn mysql_check(took: Option<Duration>) -> Check {
    Check {
        name: "mysql_answer_ms",
        value: took.map_or_else(|| "none".to_owned(), |took| took.as_millis().to_string()),
        limit: PING_DEADLINE.as_millis().to_string(),
        over: took.is_none(),
    }
}

fn exposition(registry: &Registry) -> Response<String> {
    let encoder = TextEncoder::new();
    let mut buffer = Vec::new();
    match encoder.encode(&registry.gather(), &mut buffer) {
        Ok(()) => {
            let mut response = text(StatusCode::OK, &String::from_utf8_lossy(&buffer));
            response.headers_mut().insert(
                warp::http::header::CONTENT_TYPE,
                warp::http::HeaderValue::from_static(prometheus::TEXT_FORMAT),
            );
            response
        }
        Err(error) => {
            tracing::error!(%error, "metrics could not be encoded");
            text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "metrics could not be encoded",
            )
        }
    }
}

fn text(status: StatusCode, body: &str) -> Response<String> {
    let mut response = Response::new(format!("{}\n", body.trim_end()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_within_a_second_share_one_answer() {
        let (shared, asked) = (SharedAnswer::default(), AtomicUsize::new(0));
        let ask = async || {
            tokio::time::sleep(Duration::from_millis(100)).await;
            asked.fetch_add(1, Ordering::Relaxed) + 1
        };
        let at_once = (0..1_000).map(|_| shared.get(ask));
        assert_eq!(futures_util::future::join_all(at_once).await, [1; 1_000]);
        tokio::time::advance(Duration::from_millis(800)).await;
        assert_eq!(shared.get(ask).await, 1);
        tokio::time::advance(Duration::from_millis(300)).await;
        assert_eq!(
            shared.get(ask).await,
            2,
            "a second after the first was given"
        );
    }
}
