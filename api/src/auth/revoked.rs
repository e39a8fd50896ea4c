//! The list of revoked tokens, read again and again: what was revoked is refused at most five seconds later.

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use shared::auth::RevokedTokens;
use shared::runtime::db::connect;
use shared::runtime::ops::Check;
use sqlx::MySqlConnection;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::reading::{ReadError, in_time};

/// Twice this and twice [`DEADLINE`] (a connection that fell silent, then a new one) are below five seconds.
const PAUSE: Duration = Duration::from_secs(1);
/// For connecting and reading.
const DEADLINE: Duration = Duration::from_millis(1400);

/// The list, and since when it is known to be true.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(super) list: Arc<RevokedTokens>,
    /// When it was asked for.
    asked_at: Instant,
}

impl Reading {
    /// The first one: nobody is let in without a list.
    ///
    /// # Errors
    /// MySQL does not answer.
    pub(crate) async fn first(pool: &MySqlPool) -> sqlx::Result<Self> {
        let asked_at = Instant::now();
        let mut conn = pool.acquire().await?;
        // As in `schema::check`.
        conn.close_on_drop();
        let list = Arc::new(RevokedTokens::read(&mut conn).await?);
        Ok(Self { list, asked_at })
    }

    /// Whether it may still be relied on.
    pub(super) fn is_fresh(&self, max_age: Duration) -> bool {
        self.asked_at.elapsed() <= max_age
    }

    pub(super) fn check(&self, max_age: Duration) -> Check {
        Check {
            name: "revocations_age_seconds",
            value: self.asked_at.elapsed().as_secs().to_string(),
            limit: max_age.as_secs().to_string(),
            over: !self.is_fresh(max_age),
        }
    }
}

#[derive(Debug)]
pub(crate) struct RevocationWatch {
    options: MySqlConnectOptions,
    reading: watch::Sender<Reading>,
    metrics: Arc<Metrics>,
    failing: bool,
}

pub(super) fn watch(
    first: Reading,
    options: MySqlConnectOptions,
    metrics: Arc<Metrics>,
) -> (watch::Receiver<Reading>, RevocationWatch) {
    show(&metrics, &first);
    let (reading, receiver) = watch::channel(first);
    let revocation_watch = RevocationWatch {
        options,
        reading,
        metrics,
        failing: false,
    };
    (receiver, revocation_watch)
}

impl RevocationWatch {
    /// Until `closing`, on a connection of its own: no crowd at the pool may keep it waiting.
    pub(crate) async fn run(mut self, closing: CancellationToken) {
        let mut conn = None;
        loop {
            let asked_at = Instant::now();
            let reading = in_time(DEADLINE, read(self.options.clone(), conn.take()));
            match closing.run_until_cancelled(reading).await {
                None => return,
                Some(Ok((kept, list))) => {
                    conn = Some(kept);
                    self.take(list, asked_at);
                }
                Some(Err(error)) => self.tell(&error),
            }
            if closing.run_until_cancelled(sleep(PAUSE)).await.is_none() {
                return;
            }
        }
    }

    fn take(&mut self, list: RevokedTokens, asked_at: Instant) {
        let reading = Reading {
            list: Arc::new(list),
            asked_at,
        };
        // First: whoever reads the metrics may rely on the list.
        self.reading.send_replace(reading.clone());
        show(&self.metrics, &reading);
        if std::mem::take(&mut self.failing) {
            tracing::info!("the list of revoked tokens is read again");
        }
    }

    /// The list of before stays in force until it is too old.
    fn tell(&mut self, error: &ReadError) {
        if !std::mem::replace(&mut self.failing, true) {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(%error, cause, "the list of revoked tokens cannot be read; when it is too old, callers get 503");
        }
    }
}

fn show(metrics: &Metrics, reading: &Reading) {
    let count = i64::try_from(reading.list.count()).unwrap_or(i64::MAX);
    metrics.auth.revoked_tokens.set(count);
    let now = UNIX_EPOCH.elapsed().unwrap_or_default();
    metrics.auth.revocations_read_at.set(now.as_secs_f64());
}

/// Over this connection, or a new one.
async fn read(
    options: MySqlConnectOptions,
    conn: Option<MySqlConnection>,
) -> sqlx::Result<(MySqlConnection, RevokedTokens)> {
    let mut conn = match conn {
        Some(conn) => conn,
        None => connect(&options).await?,
    };
    let list = RevokedTokens::read(&mut conn).await?;
    Ok((conn, list))
}
