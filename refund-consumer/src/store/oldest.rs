//! The oldest key of each range that the scans walk, and the gauges that follow from them.

use std::time::Duration;

use shared::domain::refund::{AttemptState, datetime};
use shared::domain::status::Status;
use sqlx::{AssertSqlSafe, Row};
use strum::IntoEnumIterator;
use time::OffsetDateTime;

use super::{Conn, OURS, PAID_BY_US};
use crate::error::Error;

/// A range of an index that is read in the order of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Range {
    /// Returns in this status, with or without a review, by `updated_at`.
    Returns(Status, bool),
    /// Attempts in this state, by `next_check_at`.
    Attempts(AttemptState),
    /// Paid attempts that are looked up again, by `recheck_at`.
    Rechecks,
}

impl Range {
    /// Every range in which something waits for a consumer.
    pub fn all() -> Vec<Self> {
        let returns = Standstill::ALL.into_iter().flat_map(Standstill::ranges);
        let open = AttemptState::iter().filter(|state| state.is_open());
        let attempts = open.map(Self::Attempts).chain([Self::Rechecks]);
        returns.chain(attempts).collect()
    }
}

/// A reading of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oldest {
    pub range: Range,
    /// Where the reading began.
    pub from: OffsetDateTime,
    /// The first key from there on.
    pub key: Option<OffsetDateTime>,
    /// The database's clock.
    pub now: OffsetDateTime,
}

impl Oldest {
    fn age(&self) -> Duration {
        let age = self.key.map(|key| self.now - key);
        age.and_then(|age| age.try_into().ok()).unwrap_or_default()
    }
}

/// The oldest key of `range` from `from` on. Attempts of other gateways do not count: they are left alone.
pub async fn oldest(
    conn: &mut Conn,
    range: Range,
    from: OffsetDateTime,
    gateway: &str,
) -> Result<Oldest, Error> {
    // The outer SELECT has a row, and so the clock, also if the range is empty. If the client gives up, the server does too.
    let read = |what: &str, first: String| {
        format!(
            "/* {what} */ SELECT /*+ MAX_EXECUTION_TIME(30000) */ UTC_TIMESTAMP(6) AS now, ({first} LIMIT 1) AS first_key"
        )
    };
    let query = match range {
        Range::Returns(status, review) => {
            let first = "SELECT updated_at FROM returns FORCE INDEX (status_updated) WHERE status = ? AND \
                         review_required = ? AND updated_at >= ? ORDER BY updated_at";
            let sql = read("oldest_return", first.to_owned());
            sqlx::query(AssertSqlSafe(sql))
                .bind(status.as_str())
                .bind(review)
                .bind(datetime(from))
        }
        Range::Attempts(state) => {
            let first = format!(
                "SELECT f.next_check_at FROM refunds AS f FORCE INDEX (due) WHERE f.state = ? AND f.next_check_at >= ? \
                 AND {OURS} ORDER BY f.next_check_at"
            );
            let sql = read("oldest_attempt", first);
            sqlx::query(AssertSqlSafe(sql))
                .bind(state.as_str())
                .bind(datetime(from))
                .bind(gateway.to_owned())
        }
        Range::Rechecks => {
            let first = format!(
                "SELECT f.recheck_at FROM refunds AS f FORCE INDEX (recheck) WHERE f.recheck_at >= ? AND {PAID_BY_US} \
                 AND f.state = 'succeeded' ORDER BY f.recheck_at"
            );
            sqlx::query(AssertSqlSafe(read("oldest_recheck", first)))
                .bind(datetime(from))
                .bind(gateway.to_owned())
        }
    };
    let row = query.fetch_one(conn).await?;
    Ok(Oldest {
        range,
        from,
        key: row.try_get("first_key")?,
        now: row.try_get("now")?,
    })
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

    fn ranges(self) -> Vec<Range> {
        match self {
            Self::In(Status::Initiated) => vec![Range::Returns(Status::Initiated, false)],
            Self::Review => vec![Range::Returns(Status::Initiated, true)],
            Self::In(status) => vec![Range::Returns(status, false), Range::Returns(status, true)],
        }
    }
}

/// The oldest key of each range, and how many attempts wait for a person.
#[derive(Debug, Clone)]
pub struct Gauges {
    pub oldest: Vec<Oldest>,
    pub parked: i64,
}

impl Gauges {
    /// How long the oldest return of this kind has not moved; zero where there is none.
    pub fn age(&self, kind: Standstill) -> Duration {
        let ranges = kind.ranges();
        let of_kind = self
            .oldest
            .iter()
            .filter(|read| ranges.contains(&read.range));
        of_kind.map(Oldest::age).max().unwrap_or_default()
    }
}

/// Reads the gauges, each range from where `from` says.
pub async fn read_gauges(
    conn: &mut Conn,
    gateway: &str,
    from: impl Fn(Range) -> OffsetDateTime + Send + Sync,
) -> Result<Gauges, Error> {
    let parked = sqlx::query_scalar(
        "/* read_gauges */ SELECT COUNT(*) FROM refunds FORCE INDEX (due) WHERE state = 'parked'",
    );
    let parked = parked.fetch_one(&mut *conn).await?;
    let mut read = Vec::new();
    for range in Range::all() {
        read.push(oldest(conn, range, from(range), gateway).await?);
    }
    Ok(Gauges {
        oldest: read,
        parked,
    })
}
