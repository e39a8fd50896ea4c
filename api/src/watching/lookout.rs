//! Looks again and again which watched returns have changed, on a connection of its own.
//!
//! While nothing is watched nothing is asked. While MySQL is away streams stay open, and hear afterwards what they missed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::domain::ids::ReturnId;
use shared::runtime::db::connect;
use shared::runtime::retry::full_jitter;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{Connection, MySqlConnection};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Hub, StatusEvent};
use crate::metrics::Metrics;
use crate::reading::{ReadError, in_time};
use crate::store::status_events;

/// A person does not notice it.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The pause is this many times what the look took: at most a fifth of one of the server's cores for every api process.
const PAUSE_FACTOR: u32 = 4;
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// For connecting and one look.
const DEADLINE: Duration = Duration::from_secs(3);
/// Between failures: at most this, so that streams hear of the end of an outage within it.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Returns asked about in one statement: 60 KB of parameter, and no statement that runs for long.
const CHUNK: usize = 5_000;

#[derive(Debug)]
pub(crate) struct Lookout {
    options: MySqlConnectOptions,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    failures: u32,
}

type News = Vec<(ReturnId, StatusEvent)>;

impl Lookout {
    pub(super) fn new(options: MySqlConnectOptions, hub: Arc<Hub>, metrics: Arc<Metrics>) -> Self {
        Self {
            options,
            hub,
            metrics,
            failures: 0,
        }
    }

    /// Looks and tells until `closing`.
    pub(crate) async fn run(mut self, closing: CancellationToken) {
        closing.run_until_cancelled(self.look_out()).await;
    }

    async fn look_out(&mut self) {
        let mut conn = None;
        loop {
            let watched = self.hub.watched();
            self.metrics.streams.watched_returns.set(count(&watched));
            if watched.is_empty() {
                self.rest(conn.take()).await;
                continue;
            }
            let began = Instant::now();
            let looking = look(self.options.clone(), conn.take(), watched);
            let pause = match in_time(DEADLINE, looking).await {
                Ok((kept, news)) => {
                    conn = Some(kept);
                    self.tell(news, began.elapsed());
                    pause_after(began.elapsed())
                }
                Err(error) => self.keep(&error),
            };
            sleep(pause).await;
        }
    }

    /// Until a return is watched. The server would end a session that is silent for so long, and tell of it as a failure.
    async fn rest(&self, conn: Option<MySqlConnection>) {
        if let Some(conn) = conn {
            let _ = in_time(DEADLINE, conn.close()).await;
        }
        self.hub.begun.notified().await;
    }

    fn tell(&mut self, news: News, took: Duration) {
        self.metrics
            .streams
            .look_seconds
            .observe(took.as_secs_f64());
        self.hub.publish(news);
        if std::mem::take(&mut self.failures) > 0 {
            tracing::info!("watched returns are looked at again");
        }
    }

    /// Answers the pause. What is known stands, so the next look that succeeds finds whatever happened meanwhile.
    fn keep(&mut self, error: &ReadError) -> Duration {
        self.metrics.streams.look_failures.inc();
        if self.failures == 0 {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(%error, cause, "watched returns cannot be looked at; their streams wait");
        }
        self.failures = self.failures.saturating_add(1);
        PAUSE_MIN + full_jitter(self.failures, PAUSE_MIN, BACKOFF_MAX)
    }
}

fn pause_after(took: Duration) -> Duration {
    took.saturating_mul(PAUSE_FACTOR)
        .clamp(PAUSE_MIN, PAUSE_MAX)
}

fn count(watched: &[(ReturnId, i32)]) -> i64 {
    i64::try_from(watched.len()).unwrap_or(i64::MAX)
}

/// Over this connection, or a new one.
async fn look(
    options: MySqlConnectOptions,
    conn: Option<MySqlConnection>,
    watched: Vec<(ReturnId, i32)>,
) -> sqlx::Result<(MySqlConnection, News)> {
    let mut conn = match conn {
        Some(conn) => conn,
        None => connect(&options).await?,
    };
    let mut news = News::new();
    for chunk in watched.chunks(CHUNK) {
        news.append(&mut status_events::read_news(&mut conn, chunk).await?);
    }
    Ok((conn, news))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_costly_look_is_followed_by_a_long_pause() {
        let millis = |took| pause_after(Duration::from_millis(took)).as_millis();
        assert_eq!([0, 50, 100, 3_000].map(millis), [200, 200, 400, 2_000]);
    }
}
