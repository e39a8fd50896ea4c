//! How much waits in each state of returns and refund attempts, and for how long. Each count is a look-up in one index.

use std::time::Duration;

use serde::Serialize;
use shared::domain::refund::AttemptState;
use shared::domain::status::Status;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, FromRow};
use strum::IntoEnumIterator;

use super::ends_within;

/// The rows of one state. The names are those of `--json`.
#[derive(Debug, Clone, Default, PartialEq, FromRow, Serialize)]
pub(crate) struct StateCount {
    pub(crate) name: String,
    pub(crate) count: i64,
    /// For a return: since its last change. For an attempt: since its check was due; negative until it is due.
    pub(crate) oldest_secs: Option<f64>,
}

/// The name under which `initiated` returns that wait for a review are counted.
pub(crate) const IN_REVIEW: &str = "in_review";

/// Returns that are not at their end, by status. Ended ones are not counted: there may be many millions.
pub(crate) async fn open_returns(
    conn: &mut MySqlConnection,
    limit: Duration,
) -> sqlx::Result<Vec<StateCount>> {
    fetch("open_returns", &open_returns_sql(), conn, limit).await
}

fn open_returns_sql() -> String {
    let open = Status::iter().filter(|status| status.is_open());
    let one = |name: &str, status: Status, and: &str| {
        let status = status.as_str();
        part(
            name,
            "updated_at",
            &format!("returns FORCE INDEX (status_updated) WHERE status = '{status}'{and}"),
        )
    };
    let parts = open.flat_map(|status| match status {
        Status::Initiated => vec![
            one(status.as_str(), status, " AND review_required = 0"),
            one(IN_REVIEW, status, " AND review_required = 1"),
        ],
        other => vec![one(other.as_str(), other, "")],
    });
    parts.collect::<Vec<String>>().join(" UNION ALL ")
}

/// Attempts that are not at their end, by state, and parked ones.
pub(crate) async fn open_attempts(
    conn: &mut MySqlConnection,
    limit: Duration,
) -> sqlx::Result<Vec<StateCount>> {
    fetch("open_attempts", &open_attempts_sql(), conn, limit).await
}

fn open_attempts_sql() -> String {
    let waits = AttemptState::iter()
        .filter(|state| state.is_open() || *state == AttemptState::Parked)
        .map(|state| {
            let name = state.as_str();
            part(
                name,
                "next_check_at",
                &format!("refunds FORCE INDEX (due) WHERE state = '{name}'"),
            )
        });
    waits.collect::<Vec<String>>().join(" UNION ALL ")
}

/// One state as one source: for several in one, MySQL reads the whole index.
fn part(name: &str, since: &str, from: &str) -> String {
    format!(
        "SELECT '{name}' AS name, COUNT(*) AS count, \
         TIMESTAMPDIFF(MICROSECOND, MIN({since}), UTC_TIMESTAMP(6)) / 1e6 AS oldest_secs FROM {from}"
    )
}

async fn fetch(
    name: &str,
    sql: &str,
    conn: &mut MySqlConnection,
    limit: Duration,
) -> sqlx::Result<Vec<StateCount>> {
    let limited = sql.replacen("SELECT", &format!("SELECT {}", ends_within(limit)), 1);
    let sql = format!("/* {name} */ {limited}");
    sqlx::query_as(AssertSqlSafe(sql)).fetch_all(conn).await
}

#[cfg(test)]
mod tests {
    use shared::test_support::TestDb;

    use super::*;
    use crate::store::explain::{key_of, refunded_long_ago};

    /// With the statistics of empty tables, and with those of many returns that were refunded long ago.
    #[tokio::test]
    async fn every_state_is_counted_by_an_index_alone() {
        let db = TestDb::create().await;
        let mut conn = db.pool.acquire().await.expect("a connection");
        plans(&mut conn).await;
        refunded_long_ago(&db, "approved", "parked").await;
        plans(&mut conn).await;
    }

    async fn plans(conn: &mut MySqlConnection) {
        for (sql, table, key) in [
            (open_returns_sql(), "returns", "status_updated"),
            (open_attempts_sql(), "refunds", "due"),
        ] {
            let explain = format!("EXPLAIN FORMAT=TRADITIONAL {sql}");
            let steps = sqlx::query(AssertSqlSafe(explain)).fetch_all(&mut *conn);
            let steps = steps.await.expect("a plan");
            let found: Vec<(String, String)> =
                steps.iter().filter_map(|step| key_of(step, &[])).collect();
            // A state without rows is not in the plan: its minimum was looked up and not found.
            let expected = vec![(table.to_owned(), key.to_owned()); found.len()];
            assert_eq!(found, expected);
        }
    }
}
