//! The reconciler's scans, each by an index of its own.

use shared::domain::ids::ReturnId;
use shared::domain::refund::{ATTEMPT, AttemptState, datetime};
use shared::domain::status::Status;
use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, FromRow, Row};
use strum::IntoEnumIterator;
use time::OffsetDateTime;

use super::attempts::{Due, due_of};
use super::oldest::Range;
use super::{Conn, OURS, PAID_BY_US};
use crate::error::Error;

/// Returns that wait to be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// New, without review, and older than the grace that its message has.
    Initiated { grace_secs: u32 },
    /// By a person after review, or not: each is a range of the index.
    Approved { reviewed: bool },
}

impl Waiting {
    pub fn range(self) -> Range {
        match self {
            Self::Initiated { .. } => Range::Returns(Status::Initiated, false),
            Self::Approved { reviewed } => Range::Returns(Status::Approved, reviewed),
        }
    }

    /// The value of the metric's label.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Initiated { .. } => Status::Initiated.as_str(),
            Self::Approved { .. } => Status::Approved.as_str(),
        }
    }
}

/// The next page of a scan begins after this row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    pub updated_at: OffsetDateTime,
    pub id: ReturnId,
}

impl From<OffsetDateTime> for Page {
    /// From this time on.
    fn from(updated_at: OffsetDateTime) -> Self {
        Self {
            updated_at,
            id: ReturnId(0),
        }
    }
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

/// What a scan takes over: open attempts in this state, or paid attempts whose look-up is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DueKind {
    Open(AttemptState),
    Recheck,
}

impl DueKind {
    pub fn range(self) -> Range {
        match self {
            Self::Open(state) => Range::Attempts(state),
            Self::Recheck => Range::Rechecks,
        }
    }
}

/// Attempts of this kind that are due at this gateway, from `floor` on, and the database's clock. No order: an attempt
/// that is taken is no longer due.
pub async fn due_attempts(
    conn: &mut Conn,
    gateway: &str,
    kind: DueKind,
    floor: OffsetDateTime,
    limit: u32,
) -> Result<(Option<OffsetDateTime>, Vec<Due>), Error> {
    let (state, index, due_at, ours) = match kind {
        DueKind::Open(state) => (state, "due", "next_check_at", OURS),
        DueKind::Recheck => (AttemptState::Succeeded, "recheck", "recheck_at", PAID_BY_US),
    };
    let sql = format!(
        "/* due_attempts */ SELECT UTC_TIMESTAMP(6) AS now, r.order_id, {ATTEMPT} \
         FROM refunds AS f FORCE INDEX ({index}) \
         STRAIGHT_JOIN returns AS r FORCE INDEX (PRIMARY) ON r.id = f.return_id \
         WHERE f.state = '{}' AND f.{due_at} >= ? AND f.{due_at} <= UTC_TIMESTAMP(6) \
         AND (f.call_deadline IS NULL OR f.call_deadline <= UTC_TIMESTAMP(6)) \
         AND {ours} LIMIT ?",
        state.as_str()
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(datetime(floor))
        .bind(gateway)
        .bind(limit)
        .fetch_all(conn)
        .await?;
    due_of(&rows)
}

/// Due attempts that belong to another gateway.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Foreign {
    pub gateway: String,
    pub state: String,
    pub attempts: i64,
}

/// Counts the attempts of other gateways that nobody has carried on for five seconds after they were due. A consumer of
/// their gateway takes them over at once.
pub async fn foreign_attempts(conn: &mut Conn, gateway: &str) -> Result<Vec<Foreign>, Error> {
    let sql = format!(
        "/* foreign_attempts */ SELECT /*+ MAX_EXECUTION_TIME(30000) */ f.gateway, f.state, COUNT(*) AS attempts \
         FROM refunds AS f FORCE INDEX (due) WHERE f.state IN ('claimed', 'sent', 'pending', 'unknown') \
         AND f.next_check_at <= UTC_TIMESTAMP(6) - INTERVAL 5 SECOND AND NOT {OURS} GROUP BY f.gateway, f.state"
    );
    let foreign = sqlx::query_as(AssertSqlSafe(sql))
        .bind(gateway)
        .fetch_all(conn)
        .await?;
    Ok(foreign)
}

/// Counts the attempts of every gateway that wait, by state; at most a hundred thousand of each.
pub async fn count_attempts(conn: &mut Conn) -> Result<Vec<(AttemptState, i64)>, Error> {
    let mut counts = Vec::new();
    for state in AttemptState::iter().filter(|state| state.waits()) {
        let count = sqlx::query_scalar(
            "/* count_attempts */ SELECT /*+ MAX_EXECUTION_TIME(30000) */ COUNT(*) \
             FROM (SELECT 1 FROM refunds FORCE INDEX (due) WHERE state = ? LIMIT 100000) AS counted",
        );
        let count = count.bind(state.as_str()).fetch_one(&mut *conn).await?;
        counts.push((state, count));
    }
    Ok(counts)
}

/// Counts the dead letters, which wait until they are redriven or discarded: both delete the row. At most ten thousand: how
/// many more there are changes nothing.
pub async fn count_dead_letters(conn: &mut Conn) -> Result<i64, Error> {
    let count = sqlx::query_scalar(
        "/* count_dead_letters */ SELECT /*+ MAX_EXECUTION_TIME(4000) */ COUNT(*) \
         FROM (SELECT 1 FROM dead_letters FORCE INDEX (record) LIMIT 10000) AS counted",
    );
    Ok(count.fetch_one(conn).await?)
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
