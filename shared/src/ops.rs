//! `/livez`, `/readyz` and `/metrics`, on a port of their own that is not for the public.
//!
//! Live means the process answers. Ready means it is not stopping and MySQL answers within a second; Kafka is left
//! out on purpose: with Kafka away filing goes on, and taking the api out of service would be the outage.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use hyper_util::service::TowerToHyperService;
use prometheus::{Encoder, Registry, TextEncoder};
use sqlx::mysql::MySqlPool;
use sqlx::{ConnectOptions, Connection};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use warp::Filter;
use warp::http::{Response, StatusCode};

use crate::http_server::{self, Limits};

/// Where the operator's endpoints listen.
#[derive(Debug, Clone, clap::Args)]
pub struct OpsArgs {
    /// Address of `/livez`, `/readyz` and `/metrics`. Not for the public. Port 0 takes a free one and
    /// tells it in the start line; `healthcheck` needs a fixed one.
    #[arg(long, env = "OPS_LISTEN", default_value = "127.0.0.1:0")]
    pub ops_listen: SocketAddr,
}

const PING_DEADLINE: Duration = Duration::from_secs(1);
const LIMITS: Limits = Limits {
    max_connections: 64,
    header_timeout: Duration::from_secs(5),
    drain: Duration::from_secs(1),
};

/// Serves until `quit`, with readiness off from `stopping` on.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    pool: MySqlPool,
    stopping: CancellationToken,
    quit: CancellationToken,
) {
    let live = warp::path!("livez").map(|| text(StatusCode::OK, "ok"));
    let ready = warp::path!("readyz").then(move || readiness(pool.clone(), stopping.clone()));
    let metrics = warp::path!("metrics").map(move || exposition(&registry));
    let routes = warp::get()
        .and(live.or(ready).unify().or(metrics).unify())
        .recover(|_| async {
            Ok::<_, Infallible>(text(
                StatusCode::NOT_FOUND,
                "not found: /livez, /readyz, /metrics",
            ))
        });
    let service = TowerToHyperService::new(warp::service(routes));
    http_server::serve(listener, service, LIMITS, quit).await;
}

/// Asks `/livez` of the program at `addr`, for `healthcheck` sub-commands; `false` also when nobody answers.
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

async fn readiness(pool: MySqlPool, stopping: CancellationToken) -> Response<String> {
    if stopping.is_cancelled() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "stopping");
    }
    // A connection of its own: a busy pool is no reason to take a process out of service. Spawned, because a
    // dropped sqlx future can spoil its connection.
    let ping = tokio::spawn(async move {
        let mut conn = pool.connect_options().connect().await?;
        sqlx::query("/* ops::readiness */ SELECT 1")
            .execute(&mut conn)
            .await?;
        conn.close().await
    });
    match tokio::time::timeout(PING_DEADLINE, ping).await {
        Ok(Ok(Ok(_))) => text(StatusCode::OK, "ready"),
        _ => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "MySQL does not answer within 1 s",
        ),
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
