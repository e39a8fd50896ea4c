//! What `doctor`, `status` and `top` count: returns, refunds and records that wait for a consumer or a person. Each count uses an index.

use std::time::Duration;

use serde::Serialize;
use shared::domain::refund::AttemptState;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, FromRow};
use strum::IntoEnumIterator;

use super::actions::Verb;
use super::ends_within;
use super::refunds::DISAGREEMENTS;

/// The number of each kind that waits. The names are those of `--json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow, Serialize)]
pub(crate) struct Findings {
    pub(crate) parked_attempts: i64,
    pub(crate) failed_returns: i64,
    /// Attempts that a consumer should have checked long ago.
    pub(crate) overdue_attempts: i64,
    /// Returns that a consumer should have claimed long ago.
    pub(crate) unclaimed_returns: i64,
    pub(crate) dead_letters: i64,
    /// New returns that a person must review.
    pub(crate) in_review: i64,
    /// Parked attempts with a request of today that a second person has not confirmed.
    pub(crate) mark_requests: i64,
    /// Paid attempts that the provider no longer confirms.
    pub(crate) doubtful_attempts: i64,
}

pub(crate) async fn findings(
    conn: &mut MySqlConnection,
    overdue_secs: i64,
    limit: Duration,
) -> sqlx::Result<Findings> {
    sqlx::query_as(AssertSqlSafe(format!(
        "/* findings */ {}",
        sql(overdue_secs, limit)
    )))
    .fetch_one(conn)
    .await
}

/// One look-up for each state, and none by time: with the statistics of an empty table MySQL reads the whole index rather
/// than a range of it.
fn sql(overdue_secs: i64, limit: Duration) -> String {
    let late = |since: &str| format!("{since} + INTERVAL {overdue_secs} SECOND < UTC_TIMESTAMP(6)");
    let attempts = |state: &str| {
        format!("(SELECT COUNT(*) FROM refunds FORCE INDEX (due) WHERE state = '{state}'")
    };
    let returns = |status: &str| {
        format!(
            "(SELECT COUNT(*) FROM returns FORCE INDEX (status_updated) WHERE status = '{status}'"
        )
    };
    let open = AttemptState::iter().filter(|state| state.is_open());
    let overdue: Vec<String> = open
        .map(|state| {
            format!(
                "{} AND {})",
                attempts(state.as_str()),
                late("next_check_at")
            )
        })
        .collect();
    format!(
        "SELECT {} {}) AS parked_attempts, {}) AS failed_returns, {} AS overdue_attempts, \
         {} AND {late_return}) + {} AND {late_return} AND review_required = 0) AS unclaimed_returns, \
         (SELECT COUNT(*) FROM dead_letters FORCE INDEX (record)) AS dead_letters, \
         {} AND review_required = 1) AS in_review, \
         {} AND 0 < (SELECT COUNT(*) FROM operator_actions AS a FORCE INDEX (return_id) WHERE a.return_id = refunds.return_id \
         AND a.verb IN ('{}', '{}') AND a.created_at > UTC_TIMESTAMP(6) - INTERVAL 1 DAY)) AS mark_requests, \
         (SELECT COUNT(DISTINCT f.return_id, f.attempt) FROM {DISAGREEMENTS}) AS doubtful_attempts",
        ends_within(limit),
        attempts("parked"),
        returns("refund_failed"),
        overdue.join(" + "),
        returns("approved"),
        returns("initiated"),
        returns("initiated"),
        attempts("parked"),
        Verb::RequestMarkPaid.as_str(),
        Verb::RequestMarkNotPaid.as_str(),
        late_return = late("updated_at")
    )
}

#[cfg(test)]
mod tests {
    use shared::test_support::TestDb;

    use super::*;
    use crate::store::explain::{key_of, refunded_long_ago};

    /// With the statistics of empty tables, and with those of many returns that were refunded long ago.
    #[tokio::test]
    async fn everything_is_counted_by_indexes_alone() {
        let db = TestDb::create().await;
        let mut conn = db.pool.acquire().await.expect("a connection");
        plan(&mut conn).await;
        refunded_long_ago(&db, "approved", "parked").await;
        plan(&mut conn).await;
    }

    async fn plan(conn: &mut MySqlConnection) {
        let explain = format!(
            "EXPLAIN FORMAT=TRADITIONAL {}",
            sql(300, Duration::from_secs(10))
        );
        let steps = sqlx::query(AssertSqlSafe(explain))
            .fetch_all(conn)
            .await
            .expect("a plan");
        let mut found: Vec<(String, String)> = steps
            .iter()
            .filter_map(|step| key_of(step, &["dead_letters"]))
            .collect();
        found.sort_unstable();
        let expected = [
            ("a", "return_id"),
            ("dead_letters", "record"),
            ("e", "type_created"),
            ("f", "PRIMARY"),
            ("refunds", "due"),
            ("refunds", "due"),
            ("refunds", "due"),
            ("refunds", "due"),
            ("refunds", "due"),
            ("refunds", "due"),
            ("returns", "status_updated"),
            ("returns", "status_updated"),
            ("returns", "status_updated"),
            ("returns", "status_updated"),
        ];
        assert_eq!(found, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }
}
