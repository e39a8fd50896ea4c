//! A snapshot of the list of revoked tokens, read every second: a revoked token is refused at most five seconds later.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use shared::auth::RevokedTokens;
use shared::runtime::clock::Moment;
use shared::runtime::db::{Database, DbError};
use shared::runtime::ops::Check;
use shared::runtime::tasks::{Outage, every};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Twice this and twice [`DEADLINE`] (a connection that went silent, then a new one) are below five seconds.
const PAUSE: Duration = Duration::from_secs(1);
/// For connecting and reading.
const DEADLINE: Duration = Duration::from_millis(1400);

/// The list, and the time at which it was certainly true.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(super) list: Arc<RevokedTokens>,
    /// When the read began.
    read_at: Moment,
}

impl Snapshot {
    /// Reads the list. The api does not start without one.
    ///
    /// # Errors
    /// MySQL does not respond.
    pub(crate) async fn read(db: &Database) -> Result<Self, DbError> {
        let read_at = Moment::now();
        let list = db.run("read_revoked_tokens", DEADLINE, |conn| {
            Box::pin(async { RevokedTokens::read(conn).await.map_err(DbError::from) })
        });
        let list = Arc::new(list.await?);
        Ok(Self { list, read_at })
    }

    /// Whether the api may still rely on it.
    pub(super) fn is_fresh(&self, max_age: Duration) -> bool {
        self.read_at.elapsed() <= max_age
    }

    pub(super) fn check(&self, max_age: Duration) -> Check {
        Check {
            name: "revocations_age_seconds",
            value: self.read_at.elapsed().as_secs().to_string(),
            limit: max_age.as_secs().to_string(),
            over: !self.is_fresh(max_age),
        }
    }
}

/// Keeps the snapshot up to date.
#[derive(Debug)]
pub(crate) struct RevocationWatch {
    db: Database,
    snapshot: watch::Sender<Snapshot>,
    metrics: Arc<Metrics>,
    outage: Outage,
}

pub(super) fn watch(
    first: Snapshot,
    db: &Database,
    metrics: Arc<Metrics>,
) -> (watch::Receiver<Snapshot>, RevocationWatch) {
    show(&metrics, &first);
    let (snapshot, receiver) = watch::channel(first);
    let revocation_watch = RevocationWatch {
        // Its own connection: many waiting requests must not delay it.
        db: db.separate(1),
        snapshot,
        metrics,
        outage: Outage::new("reading the list of revoked tokens"),
    };
    (receiver, revocation_watch)
}

impl RevocationWatch {
    /// Runs until `stop`. While the list cannot be read, the last snapshot stays in force until it is too old; then
    /// callers get 503.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut turns = every(PAUSE, &stop);
        while turns.next().await {
            match stop.run_until_cancelled(Snapshot::read(&self.db)).await {
                None => return,
                Some(Ok(snapshot)) => {
                    self.outage.ended();
                    // Before the metrics: a test or an operator who reads the metrics may rely on the list.
                    self.snapshot.send_replace(snapshot.clone());
                    show(&self.metrics, &snapshot);
                }
                Some(Err(error)) => self.outage.failed(&error),
            }
        }
    }
}

fn show(metrics: &Metrics, snapshot: &Snapshot) {
    let count = i64::try_from(snapshot.list.count()).unwrap_or(i64::MAX);
    metrics.auth.revoked_tokens.set(count);
    let now = UNIX_EPOCH.elapsed().unwrap_or_default();
    metrics.auth.revocations_read_at.set(now.as_secs_f64());
}
