//! The reconciler's scans and the gauges, each by an index of its own.

use std::time::Duration;

use shared::domain::ids::ReturnId;
use shared::domain::refund::{ATTEMPT, Attempt, datetime};
use shared::domain::status::Status;
use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, FromRow, Row};
use time::OffsetDateTime;

use super::Conn;
use super::attempts::Due;
use crate::error::Error;

/// Returns that wait to be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// New, without review, and older than the grace that its message has.
    Initiated { grace_secs: u32 },
    /// By a person after review, or not: each is a range of the index.
    Approved { reviewed: bool },
}

/// The next page of a scan begins after this row.
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
    conn: &mut Conn,
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
        .fetch_all(conn)
        .await?;
    let read = |row: &MySqlRow| {
        Ok(Page {
            updated_at: row.try_get("updated_at")?,
            id: row.try_get("id")?,
        })
    };
    rows.iter().map(read).collect()
}

/// Attempts that one scan looks for together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DueKind {
    /// Sent or unknown: the customer may have been paid.
    Unclear,
    Claimed,
    /// Accepted by the provider, which settles it in its own time.
    Pending,
}

/// Attempts that are due at this gateway, and the database's clock. No order: an attempt that is taken is no longer due.
pub async fn due_attempts(
    conn: &mut Conn,
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
    let sql = format!(
        "/* due_attempts */ SELECT UTC_TIMESTAMP(6) AS now, r.order_id, {ATTEMPT} FROM refunds AS f FORCE INDEX (due) STRAIGHT_JOIN returns AS r FORCE INDEX (PRIMARY) ON r.id = f.return_id \
         WHERE f.state IN (?, ?) AND f.next_check_at <= UTC_TIMESTAMP(6) \
         AND (f.call_deadline IS NULL OR f.call_deadline <= UTC_TIMESTAMP(6)) \
         AND (f.gateway IS NULL OR f.gateway = ?) LIMIT ?"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(one)
        .bind(other)
        .bind(gateway)
        .bind(limit)
        .fetch_all(conn)
        .await?;
    let now = rows.first().map(|row| row.try_get("now")).transpose()?;
    let read = |row: &MySqlRow| -> sqlx::Result<Due> {
        Ok(Due {
            attempt: Attempt::from_row(row)?,
            order_id: row.try_get("order_id")?,
        })
    };
    let mut due: Vec<Due> = rows.iter().map(read).collect::<sqlx::Result<_>>()?;
    due.sort_unstable_by_key(|due| due.attempt.id);
    Ok((now, due))
}

/// Deletes up to `limit` events older than the retention, of every consumer group: a group that was renamed does not delete
/// its own. Returns how many.
pub async fn expire_inbox(conn: &mut Conn, retention_days: u16, limit: u32) -> Result<u64, Error> {
    let deleted = sqlx::query(
        "/* expire_inbox */ DELETE /*+ INDEX(inbox received_at) */ FROM inbox \
         WHERE received_at < UTC_TIMESTAMP(6) - INTERVAL ? DAY ORDER BY received_at LIMIT ?",
    )
    .bind(retention_days)
    .bind(limit)
    .execute(conn)
    .await?
    .rows_affected();
    Ok(deleted)
}

/// What a return that does not move waits for: the value of the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standstill {
    /// A step that follows by itself, or the retry of a failed refund.
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
pub struct Gauges {
    /// As in [`Standstill::ALL`]; zero where there is none.
    pub oldest: [Duration; Standstill::ALL.len()],
    pub parked: i64,
}

impl Default for Gauges {
    fn default() -> Self {
        Self {
            oldest: [Duration::ZERO; Standstill::ALL.len()],
            parked: 0,
        }
    }
}

/// Reads the gauges; one or two steps into an index for each kind.
pub async fn read_gauges(conn: &mut Conn) -> Result<Gauges, Error> {
    let mut gauges = Gauges::default();
    for (kind, oldest) in Standstill::ALL.into_iter().zip(&mut gauges.oldest) {
        for (status, review) in kind.ranges() {
            let micros: Option<i64> = sqlx::query_scalar(
                "/* read_gauges */ SELECT TIMESTAMPDIFF(MICROSECOND, updated_at, UTC_TIMESTAMP(6)) \
                 FROM returns FORCE INDEX (status_updated) WHERE status = ? AND review_required = ? \
                 ORDER BY updated_at LIMIT 1",
            )
            .bind(status.as_str())
            .bind(review)
            .fetch_optional(&mut *conn)
            .await?;
            let age = Duration::from_micros(micros.unwrap_or(0).max(0).unsigned_abs());
            *oldest = (*oldest).max(age);
        }
    }
    gauges.parked = sqlx::query_scalar(
        "/* read_gauges */ SELECT COUNT(*) FROM refunds FORCE INDEX (due) WHERE state = 'parked'",
    )
    .fetch_one(conn)
    .await?;
    Ok(gauges)
}
