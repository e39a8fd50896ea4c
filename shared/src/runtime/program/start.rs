//! The time before a program is ready: it waits for MySQL, and says so.
//!
//! A supervisor gives a program up that ends too often at its start. So after an outage of MySQL, or before the schema is
//! migrated, a program waits: alive, not ready, and with the reason on `/readyz` and in the log.

use std::error::Error;
use std::iter::successors;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Start;
use crate::runtime::db::{DbArgs, DbFailure};
use crate::runtime::ops::{self, Checks};
use crate::runtime::schema::SchemaError;
use crate::runtime::tasks::{Backoff, chain};

const BACKOFF: Backoff = Backoff {
    base: Duration::from_millis(100),
    cap: Duration::from_secs(2),
};

// No doc comment: clap would show it as the text of every program that flattens this.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct StartArgs {
    /// Seconds for which a start waits until MySQL answers and has the schema that the program needs. Meanwhile `/livez`
    /// says 200 and `/readyz` 503 with the reason. Too low, and a supervisor gives the program up during an outage; 0 ends
    /// at the first failure.
    #[arg(long, env = "DATABASE_START_WAIT_SECS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    database_start_wait_secs: u32,
}

impl StartArgs {
    pub(super) fn wait(&self) -> Duration {
        Duration::from_secs(self.database_start_wait_secs.into())
    }
}

/// Why a program cannot begin its work.
#[derive(Debug, thiserror::Error)]
#[error("MySQL at {server} cannot be used after {waited_secs} s")]
pub struct NotReady {
    /// Host and port.
    server: String,
    waited_secs: u64,
    source: Box<dyn Error + Send + Sync>,
}

/// What operators see while a program waits. Dropping it frees the port.
struct Waiting {
    reason: watch::Sender<String>,
    _serving: DropGuard,
}

impl Start {
    /// Runs `connect` until it succeeds; `None` if the program is stopped meanwhile. The metrics are those of `registry`.
    ///
    /// # Errors
    /// MySQL could not be used within `DATABASE_START_WAIT_SECS`, or waiting cannot help.
    pub async fn when_mysql_is_ready<T, E>(
        &self,
        db: &DbArgs,
        registry: &Registry,
        connect: impl AsyncFn() -> Result<T, E>,
    ) -> Result<Option<T>, NotReady>
    where
        E: Error + Send + Sync + 'static,
    {
        let (began, mut tries, mut waiting) = (Instant::now(), 0, None);
        loop {
            let Some(connected) = self.stop.run_until_cancelled(connect()).await else {
                return Ok(None);
            };
            let error = match connected {
                Ok(ready) => return Ok(Some(ready)),
                Err(error) => error,
            };
            if !may_pass(&error) || began.elapsed() >= self.wait {
                return Err(NotReady {
                    server: db.server(),
                    waited_secs: began.elapsed().as_secs(),
                    source: error.into(),
                });
            }
            let waiting = waiting.get_or_insert_with(|| self.serve_not_ready(registry));
            waiting.report(&db.server(), &error);
            let pause = tokio::time::sleep(BACKOFF.pause(tries));
            if self.stop.run_until_cancelled(pause).await.is_none() {
                return Ok(None);
            }
            tries += 1;
        }
    }

    fn serve_not_ready(&self, registry: &Registry) -> Waiting {
        let (reason, shown) = watch::channel(String::new());
        let quit = CancellationToken::new();
        match second_handle(&self.ops_listener) {
            Ok(listener) => {
                let checks = Checks::starting(shown);
                let (stopping, quit) = (self.stop.clone(), quit.clone());
                let serve = ops::serve(listener, registry.clone(), checks, stopping, quit);
                tokio::spawn(serve);
            }
            Err(error) => tracing::warn!(%error, "no operator endpoints until MySQL is ready"),
        }
        Waiting {
            reason,
            _serving: quit.drop_guard(),
        }
    }
}

impl Waiting {
    /// Logs a reason when it changes.
    fn report(&self, server: &str, error: &(dyn Error + 'static)) {
        let error = chain(error);
        let reason = format!("waiting for MySQL at {server}: {error}");
        let is_new = self.reason.send_if_modified(|shown| {
            let is_new = *shown != reason;
            *shown = reason;
            is_new
        });
        if is_new {
            tracing::warn!(mysql = server, error, "MySQL is not ready: waiting for it");
        }
    }
}

/// Whether waiting may help: MySQL is in trouble, or somebody may migrate the schema meanwhile.
fn may_pass(error: &(dyn Error + 'static)) -> bool {
    let mut causes = successors(Some(error), |&error| error.source());
    let awaits_schema = causes.any(|error| {
        let schema = error.downcast_ref::<SchemaError>();
        matches!(
            schema,
            Some(SchemaError::Missing | SchemaError::TooOld { .. })
        )
    });
    awaits_schema || DbFailure::in_chain(error).is_some_and(|failure| failure.is_transient())
}

/// The same port once more: the program itself serves it later.
fn second_handle(listener: &TcpListener) -> std::io::Result<TcpListener> {
    let handle = std::net::TcpListener::from(listener.as_fd().try_clone_to_owned()?);
    TcpListener::from_std(handle)
}
