//! What the reconciler looks for, each by an index of its own.

use std::time::Duration;

use shared::domain::ids::ReturnId;
use shared::domain::status::Status;
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
    Initiated { grace_secs: u32 },
    /// By a person after review, or not: each is a range of the index.
    Approved { reviewed: bool },
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
             WHERE status = 'initiated' AND review_required = 0 \
             AND updated_at <= UTC_TIMESTAMP(6) - INTERVAL ? SECOND AND updated_at >= ? \
             AND (updated_at > ? OR id > ?) ORDER BY updated_at, id LIMIT ?",
        )
        .bind(grace_secs),
        Waiting::Approved { reviewed } => sqlx::query(
            "/* waiting_returns */ SELECT id, updated_at FROM returns FORCE INDEX (status_updated) \
             WHERE status = 'approved' AND review_required = ? AND updated_at >= ? \
             AND (updated_at > ? OR id > ?) ORDER BY updated_at, id LIMIT ?",
        )
        .bind(reviewed),
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

/// Attempts that are looked for together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DueKind {
    /// Sent or unknown: somebody may have been paid.
    Unclear,
    Claimed,
    /// Accepted by the provider, which settles it in its own time.
    Pending,
}

/// Attempts that are due at this gateway, with the database's clock. No order: what is taken is no longer due.
pub async fn due_attempts(
    pool: &MySqlPool,
    gateway: &str,
    kind: DueKind,
    limit: u32,
) -> Result<(Option<OffsetDateTime>, Vec<Due>), Error> {
    let states = match kind {
        DueKind::Unclear => ["sent", "unknown"],
        DueKind::Claimed => ["claimed"; 2],
        DueKind::Pending => ["pending"; 2],
    };
    let [one, other] = states;
    let rows = sqlx::query(
        "/* due_attempts */ SELECT UTC_TIMESTAMP(6) AS now, f.return_id, f.attempt, r.order_id, f.idempotency_key, \
         f.amount, f.currency, f.state, f.owner, f.first_sent_at, f.sent_with_key, f.next_check_at, f.checks, \
         f.gateway_ref \
         FROM refunds AS f FORCE INDEX (due) STRAIGHT_JOIN returns AS r FORCE INDEX (PRIMARY) ON r.id = f.return_id \
         WHERE f.state IN (?, ?) AND f.next_check_at <= UTC_TIMESTAMP(6) \
         AND (f.call_deadline IS NULL OR f.call_deadline <= UTC_TIMESTAMP(6)) \
         AND (f.gateway IS NULL OR f.gateway = ?) LIMIT ?",
    )
    .bind(one)
    .bind(other)
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

/// What a return that does not move waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standstill {
    /// Something that should go on by itself, or by the retry of a failed refund.
    In(Status),
    /// A new return that a person must review.
    Review,
}

impl Standstill {
    pub const ALL: [Self; 5] = [
        Self::In(Status::Initiated),
        Self::Review,
        Self::In(Status::Approved),
        Self::In(Status::RefundPending),
        Self::In(Status::RefundFailed),
    ];

    pub fn code(self) -> &'static str {
        match self {
            Self::In(status) => status.as_str(),
            Self::Review => "in_review",
        }
    }

    /// The ranges of the index that hold it: status and whether a review was asked for.
    fn ranges(self) -> Vec<(Status, bool)> {
        match self {
            Self::In(Status::Initiated) => vec![(Status::Initiated, false)],
            Self::Review => vec![(Status::Initiated, true)],
            Self::In(status) => vec![(status, false), (status, true)],
        }
    }
}

/// How long the oldest return of each unfinished kind has not moved, and how many attempts wait for a person.
#[derive(Debug, Clone, Copy)]
pub struct Census {
    /// As in [`Standstill::ALL`]; zero where there is none.
    pub oldest: [Duration; Standstill::ALL.len()],
    pub parked: i64,
}

impl Default for Census {
    fn default() -> Self {
        Self {
            oldest: [Duration::ZERO; Standstill::ALL.len()],
            parked: 0,
        }
    }
}

/// Reads the census; one or two steps into an index for each kind.
pub async fn take_census(pool: &MySqlPool) -> Result<Census, Error> {
    let mut census = Census::default();
    for (kind, oldest) in Standstill::ALL.into_iter().zip(&mut census.oldest) {
        for (status, review) in kind.ranges() {
            let micros: Option<i64> = sqlx::query_scalar(
                "/* take_census */ SELECT TIMESTAMPDIFF(MICROSECOND, updated_at, UTC_TIMESTAMP(6)) \
                 FROM returns FORCE INDEX (status_updated) WHERE status = ? AND review_required = ? \
                 ORDER BY updated_at LIMIT 1",
            )
            .bind(status.as_str())
            .bind(review)
            .fetch_optional(pool)
            .await?;
            let age = Duration::from_micros(micros.unwrap_or(0).max(0).unsigned_abs());
            *oldest = (*oldest).max(age);
        }
    }
    census.parked = sqlx::query_scalar(
        "/* take_census */ SELECT COUNT(*) FROM refunds FORCE INDEX (due) WHERE state = 'parked'",
    )
    .fetch_one(pool)
    .await?;
    Ok(census)
}
