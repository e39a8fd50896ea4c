//! The customers' HTTP API: a return and its event are written in one MySQL transaction; Kafka is never asked.
//!
//! Must stay true: a 201 is sent only for a committed row (or one found after a lost COMMIT); every transaction runs
//! in a task of its own, so a client that hangs up cannot cancel it half way; errors travel as [`error::ApiError`],
//! never as warp rejections.

pub mod config;
pub mod error;

pub mod auth;
pub mod routes;
pub mod server;

pub mod filing;
pub mod idempotency;
mod store;

pub mod metrics;

use std::sync::Arc;

use shared::http_server::Drain;
use shared::{ops, schema};
use sqlx::mysql::MySqlPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::auth::Authenticator;
use crate::config::Config;
use crate::filing::FilingDesk;
use crate::metrics::Metrics;

/// A started api: its listeners are bound and the schema is checked.
#[derive(Debug)]
pub struct App {
    cfg: Config,
    listener: TcpListener,
    ops_listener: TcpListener,
    pool: MySqlPool,
    authenticator: Authenticator,
}

impl App {
    /// Reads the keys and checks the schema. Binds nothing: the listeners come from the caller.
    ///
    /// # Errors
    /// A key file cannot be read, MySQL is away, or the schema is too old (the message names the command to run).
    pub async fn build(
        cfg: Config,
        listener: TcpListener,
        ops_listener: TcpListener,
    ) -> anyhow::Result<Self> {
        let authenticator = Authenticator::load(&cfg.auth)?;
        let pool = cfg.db.pool().map_err(anyhow::Error::msg)?;
        schema::check(&pool).await?;
        Ok(Self {
            cfg,
            listener,
            ops_listener,
            pool,
            authenticator,
        })
    }

    /// Serves until `stop`, then drains: open requests are answered, then queued filings, then the pool is closed.
    pub async fn run(self, stop: CancellationToken) -> Drain {
        let metrics = Arc::new(Metrics::new());
        let quit = CancellationToken::new();
        let ops = tokio::spawn(ops::serve(
            self.ops_listener,
            metrics.registry().clone(),
            self.pool.clone(),
            stop.clone(),
            quit.clone(),
        ));
        let (desk, writers) = FilingDesk::open(&self.cfg, self.pool.clone(), Arc::clone(&metrics));
        let expiry = tokio::spawn(idempotency::expire(self.pool.clone(), stop.clone()));
        let state = routes::State {
            pool: self.pool.clone(),
            authenticator: Arc::new(self.authenticator),
            desk,
        };
        let drain = server::serve(self.listener, state, &self.cfg.http, metrics, stop).await;
        // The last route, and with it the last sender of the queue, is gone: the writers end when it is empty.
        for task in writers.into_iter().chain([expiry]) {
            if let Err(error) = task.await {
                tracing::error!(%error, "a background task panicked");
            }
        }
        quit.cancel();
        if let Err(error) = ops.await {
            tracing::error!(%error, "the operator endpoints panicked");
        }
        self.pool.close().await;
        drain
    }
}
