//! What the reconciler looks for, each by an index of its own.

use std::time::Duration;

use shared::ids::ReturnId;
use shared::status::Status;
use sqlx::Row;
use sqlx::mysql::{MySqlPool, MySqlRow};
use time::OffsetDateTime;

use super::attempts::{Due, read_due};
use super::datetime;
use crate::error::Error;

/// Returns that nobody has claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// New, without review, and older than the grace that its message has.
    Initiated {
        grace_secs: u32,
    },
    Approved,
}

/// Where the next page of a scan begins: after this row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    pub updated_at: OffsetDateTime,
    pub id: ReturnId,
}

impl Page {
    pub const FIRST: Self = Self {
        updated_at: time::macros::datetime!(2000-01-01 0:00 UTC),
        id: ReturnId(0),
    };
}

/// One page of waiting returns, the longest waiting first.
pub async fn waiting_returns(
    pool: &MySqlPool,
    waiting: Waiting,
    after: Page,
    limit: u32,
) -> Result<Vec<Page>, Error> {
    let query = match waiting {
        Waiting::Initiated { grace_secs } => sqlx::query(
            "/* waiting_returns */ SELECT id, updated_at FROM returns FORCE INDEX (status_updated) \
             WHERE status = 'initiated' AND updated_at <= UTC_TIMESTAMP(6) - INTERVAL ? SECOND AND updated_at >= ? \
             AND (updated_at > ? OR id > ?) AND review_required = 0 ORDER BY updated_at, id LIMIT ?",
        )
        .bind(grace_secs),
        Waiting::Approved => sqlx::query(
            "/* waiting_returns */ SELECT id, updated_at FROM returns FORCE INDEX (status_updated) \
             WHERE status = 'approved' AND updated_at >= ? AND (updated_at > ? OR id > ?) \
             ORDER BY updated_at, id LIMIT ?",
        ),
    };
    let after_text = datetime(after.updated_at);
    let rows = query
        .bind(after_text.clone())
        .bind(after_text)
        .bind(after.id)
        .bind(limit)
        .fetch_all(pool)
        .await?;
    let read = |row: &MySqlRow| {
        Ok(Page {
            updated_at: row.try_get("updated_at")?,
            id: row.try_get("id")?,
        })
    };
    rows.iter().map(read).collect()
}

/// Attempts that are due at this gateway, with the database's clock. No order: what is taken is no longer due.
pub async fn due_attempts(
    pool: &MySqlPool,
    gateway: &str,
    limit: u32,
) -> Result<(Option<OffsetDateTime>, Vec<Due>), Error> {
    let rows = sqlx::query(
        "/* due_attempts */ SELECT UTC_TIMESTAMP(6) AS now, f.return_id, f.attempt, r.order_id, f.idempotency_key, \
         f.amount, f.currency, f.state, f.owner, f.first_sent_at, f.sent_with_key, f.next_check_at, f.checks, \
         f.gateway_ref \
         FROM refunds AS f FORCE INDEX (due) STRAIGHT_JOIN returns AS r FORCE INDEX (PRIMARY) ON r.id = f.return_id \
         WHERE f.state IN ('claimed', 'sent', 'pending', 'unknown') AND f.next_check_at <= UTC_TIMESTAMP(6) \
         AND (f.call_deadline IS NULL OR f.call_deadline <= UTC_TIMESTAMP(6)) \
         AND (f.gateway IS NULL OR f.gateway = ?) LIMIT ?",
    )
    .bind(gateway)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let now = rows.first().map(|row| row.try_get("now")).transpose()?;
    let mut due: Vec<Due> = rows.iter().map(read_due).collect::<Result<_, _>>()?;
    due.sort_unstable_by_key(|due| due.id);
    Ok((now, due))
}

/// Forgets up to `limit` events older than the retention, of every consumer: one that has another name now will not come
/// back for its own. Answers how many.
pub async fn expire_inbox(pool: &MySqlPool, retention_days: u16, limit: u32) -> Result<u64, Error> {
    let deleted = sqlx::query(
        "/* expire_inbox */ DELETE /*+ INDEX(inbox received_at) */ FROM inbox \
         WHERE received_at < UTC_TIMESTAMP(6) - INTERVAL ? DAY ORDER BY received_at LIMIT ?",
    )
    .bind(retention_days)
    .bind(limit)
    .execute(pool)
    .await?
    .rows_affected();
    Ok(deleted)
}

/// How long the oldest return of each unfinished status has not moved, and how many attempts wait for a person.
#[derive(Debug, Clone, Copy)]
pub struct Census {
    /// Zero where there is none.
    pub oldest: [(Status, Duration); 4],
    pub parked: i64,
}

impl Default for Census {
    fn default() -> Self {
        Self {
            oldest: [
                (Status::Initiated, Duration::ZERO),
                (Status::Approved, Duration::ZERO),
                (Status::RefundPending, Duration::ZERO),
                (Status::RefundFailed, Duration::ZERO),
            ],
            parked: 0,
        }
    }
}

/// Reads the census; one step into an index for each status.
pub async fn take_census(pool: &MySqlPool) -> Result<Census, Error> {
    let mut census = Census::default();
    for (status, age) in &mut census.oldest {
        let micros: Option<i64> = sqlx::query_scalar(
            "/* take_census */ SELECT TIMESTAMPDIFF(MICROSECOND, updated_at, UTC_TIMESTAMP(6)) \
             FROM returns FORCE INDEX (status_updated) WHERE status = ? ORDER BY updated_at LIMIT 1",
        )
        .bind(status.as_str())
        .fetch_optional(pool)
        .await?;
        *age = Duration::from_micros(micros.unwrap_or(0).max(0).unsigned_abs());
    }
    census.parked = sqlx::query_scalar(
        "/* take_census */ SELECT COUNT(*) FROM refunds FORCE INDEX (due) WHERE state = 'parked'",
    )
    .fetch_one(pool)
    .await?;
    Ok(census)
}
