//! What an operator reads about refunds, each by an index. Only the order is locked, if the caller says so; `shared` locks and
//! writes the return and its attempts.

use shared::domain::eligibility::{ORDER, OrderFacts, REFUNDED_HERE};
use shared::domain::ids::{OrderId, ReturnId};
use shared::domain::refund::{ATTEMPT, Attempt, AttemptState, OVERDUE};
use shared::domain::row::decode_enum;
use shared::domain::status::Status;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Executor, FromRow, Row};
use strum::IntoEnumIterator;
use time::OffsetDateTime;

use super::actions::Verb;

fn status(row: &MySqlRow) -> sqlx::Result<Status> {
    decode_enum(row, "status")
}

/// The attempts to list.
#[derive(Debug, Clone)]
pub(crate) struct AttemptFilter {
    pub(crate) states: Vec<AttemptState>,
    /// Also the last attempt of each return that is `refund_failed`.
    pub(crate) failed: bool,
    /// Also those that a consumer should have checked long ago.
    pub(crate) overdue: bool,
    /// Also paid ones that the provider no longer confirms.
    pub(crate) doubtful: bool,
    /// Only returns with a higher id.
    pub(crate) after: ReturnId,
    /// At most this many returns.
    pub(crate) limit: i64,
}

/// An attempt and the return it belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) attempt: Attempt,
    pub(crate) order_id: OrderId,
    pub(crate) status: Status,
    pub(crate) age_secs: f64,
    /// The database's clock.
    pub(crate) now: OffsetDateTime,
}

/// The condition of [`DISAGREEMENTS`] for an attempt alone.
const DOUBTFUL: &str = "f.state = 'succeeded' AND f.last_error IS NOT NULL";

/// Paid attempts `f` whose payment the provider does not confirm any more, or has taken back without an effect yet. Each
/// doubt was recorded as an event `e`, of which there are few, so the paid attempts need no index for them.
pub(super) const DISAGREEMENTS: &str = "return_events AS e FORCE INDEX (type_created) \
     STRAIGHT_JOIN refunds AS f FORCE INDEX (PRIMARY) ON f.return_id = e.return_id \
     WHERE e.event_type = 'refund.answer_disagreed' AND f.state = 'succeeded' AND f.last_error IS NOT NULL";

impl AttemptFilter {
    /// The states whose overdue attempts are to be listed.
    fn overdue_states(&self) -> impl Iterator<Item = AttemptState> {
        let wanted = self.overdue;
        AttemptState::iter().filter(move |state| wanted && state.is_open())
    }

    /// The ids of the page's returns are read first, from narrow indexes alone; then their rows. Each state is a source of
    /// its own: for several in one, MySQL reads the whole index.
    fn sql(&self) -> String {
        let by_state = "(SELECT DISTINCT return_id FROM refunds FORCE INDEX (due) WHERE state = ? \
                        AND return_id > ? ORDER BY return_id LIMIT ?)";
        let mut sources = vec![by_state.to_owned(); self.states.len()];
        let mut picked = vec!["f.state = ?".to_owned(); self.states.len()];
        // Not a range of the index: with the statistics of an empty table MySQL would read all of it.
        let late = format!(
            "next_check_at + INTERVAL {} SECOND < UTC_TIMESTAMP(6)",
            OVERDUE.whole_seconds()
        );
        for _ in self.overdue_states() {
            sources.push(format!(
                "(SELECT DISTINCT return_id FROM refunds FORCE INDEX (due) WHERE state = ? AND {late} \
                 AND return_id > ? ORDER BY return_id LIMIT ?)"
            ));
            picked.push(format!("(f.state = ? AND f.{late})"));
        }
        if self.failed {
            sources.push(
                "(SELECT id AS return_id FROM returns FORCE INDEX (status_updated) WHERE status = 'refund_failed' \
                 AND id > ? ORDER BY id LIMIT ?)"
                    .to_owned(),
            );
            picked.push(
                "(r.status = 'refund_failed' AND f.attempt = (SELECT MAX(l.attempt) FROM refunds AS l \
                 FORCE INDEX (PRIMARY) WHERE l.return_id = f.return_id))"
                    .to_owned(),
            );
        }
        if self.doubtful {
            sources.push(format!(
                "(SELECT DISTINCT e.return_id FROM {DISAGREEMENTS} AND e.return_id > ? ORDER BY e.return_id LIMIT ?)"
            ));
            picked.push(format!("({DOUBTFUL})"));
        }
        format!(
            "SELECT {ATTEMPT}, r.order_id, r.status, \
             TIMESTAMPDIFF(MICROSECOND, f.created_at, UTC_TIMESTAMP(6)) / 1e6 AS age_secs, \
             UTC_TIMESTAMP(6) AS now FROM ({} ORDER BY return_id LIMIT ?) AS wanted \
             STRAIGHT_JOIN returns AS r FORCE INDEX (PRIMARY) ON r.id = wanted.return_id \
             STRAIGHT_JOIN refunds AS f FORCE INDEX (PRIMARY) ON f.return_id = r.id \
             WHERE {} ORDER BY f.return_id, f.attempt",
            sources.join(" UNION "),
            picked.join(" OR ")
        )
    }

    async fn fetch(&self, prefix: &str, conn: &mut MySqlConnection) -> sqlx::Result<Vec<MySqlRow>> {
        let mut query = sqlx::query(AssertSqlSafe(format!("{prefix} {}", self.sql())));
        let by_state = || self.states.iter().copied().chain(self.overdue_states());
        for state in by_state() {
            query = query.bind(state.as_str()).bind(self.after).bind(self.limit);
        }
        for wanted in [self.failed, self.doubtful] {
            if wanted {
                query = query.bind(self.after).bind(self.limit);
            }
        }
        query = query.bind(self.limit);
        for state in by_state() {
            query = query.bind(state.as_str());
        }
        query.fetch_all(conn).await
    }
}

/// Attempts by return and number.
pub(crate) async fn list_refunds(
    conn: &mut MySqlConnection,
    filter: &AttemptFilter,
) -> sqlx::Result<Vec<Listed>> {
    let rows = filter.fetch("/* list_refunds */", conn).await?;
    let read = |row: &MySqlRow| {
        Ok(Listed {
            attempt: Attempt::from_row(row)?,
            order_id: row.try_get("order_id")?,
            status: status(row)?,
            age_secs: row.try_get("age_secs")?,
            now: row.try_get("now")?,
        })
    };
    rows.iter().map(read).collect()
}

/// Makes the next transaction read from one snapshot: rows of different moments could contradict each other.
pub(crate) async fn snapshot_next(conn: &mut MySqlConnection) -> sqlx::Result<()> {
    conn.execute("/* snapshot_next */ SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        .await?;
    Ok(())
}

/// The order of a return: it never changes, so no lock is needed.
pub(crate) async fn order_of(
    conn: &mut MySqlConnection,
    id: ReturnId,
) -> sqlx::Result<Option<OrderId>> {
    sqlx::query_scalar("/* order_of */ SELECT order_id FROM returns WHERE id = ?")
        .bind(id)
        .fetch_optional(conn)
        .await
}

/// Whether a read locks the rows that it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    None,
    Update,
}

pub(crate) async fn read_order(
    conn: &mut MySqlConnection,
    id: OrderId,
    lock: Lock,
) -> sqlx::Result<Option<OrderFacts>> {
    match lock {
        Lock::None => {}
        // First, so that what was refunded is read as it is under the lock.
        Lock::Update => lock_order(conn, id).await?,
    }
    let sql =
        format!("/* read_order */ SELECT {ORDER}, {REFUNDED_HERE} FROM orders AS o WHERE o.id = ?");
    sqlx::query_as(AssertSqlSafe(sql))
        .bind(id)
        .fetch_optional(conn)
        .await
}

async fn lock_order(conn: &mut MySqlConnection, id: OrderId) -> sqlx::Result<()> {
    sqlx::query("/* lock_order */ SELECT id FROM orders WHERE id = ? FOR UPDATE")
        .bind(id)
        .execute(conn)
        .await?;
    Ok(())
}

/// The attempts of a return, ascending.
pub(crate) async fn read_attempts(
    conn: &mut MySqlConnection,
    id: ReturnId,
) -> sqlx::Result<Vec<Attempt>> {
    let sql = format!(
        "/* read_attempts */ SELECT {ATTEMPT} FROM refunds AS f WHERE f.return_id = ? ORDER BY f.attempt"
    );
    sqlx::query_as(AssertSqlSafe(sql))
        .bind(id)
        .fetch_all(conn)
        .await
}

/// A request to mark an attempt as paid or as not paid, as recorded.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct RequestRow {
    pub(crate) id: i64,
    pub(crate) verb: String,
    #[sqlx(rename = "actor_id")]
    pub(crate) requested_by: String,
    #[sqlx(rename = "reason")]
    pub(crate) evidence: String,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) age_secs: f64,
    /// JSON.
    pub(crate) details: String,
}

/// The last request for this return: it replaces those before it, whatever they state.
pub(crate) async fn last_request(
    conn: &mut MySqlConnection,
    id: ReturnId,
) -> sqlx::Result<Option<RequestRow>> {
    sqlx::query_as(
        "/* last_request */ SELECT id, verb, actor_id, reason, created_at, \
         TIMESTAMPDIFF(MICROSECOND, created_at, UTC_TIMESTAMP(6)) / 1e6 AS age_secs, CAST(details AS CHAR) AS details \
         FROM operator_actions FORCE INDEX (return_id) WHERE return_id = ? AND verb IN (?, ?) AND actor_type = 'admin' \
         ORDER BY id DESC LIMIT 1",
    )
    .bind(id)
    .bind(Verb::RequestMarkPaid.as_str())
    .bind(Verb::RequestMarkNotPaid.as_str())
    .fetch_optional(conn)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::explain::{key_of, refunded_long_ago};
    use shared::test_support::TestDb;

    /// With the statistics of empty tables, and with those of many returns that were refunded long ago.
    #[tokio::test]
    async fn a_list_is_found_by_indexes_alone() {
        let db = TestDb::create().await;
        let mut conn = db.pool.acquire().await.expect("a connection");
        every_plan(&mut conn).await;
        refunded_long_ago(&db, "refund_failed", "declined").await;
        every_plan(&mut conn).await;
    }

    async fn every_plan(conn: &mut MySqlConnection) {
        use AttemptState::{Parked, Succeeded, Unknown};
        for (states, failed, overdue, doubtful) in [
            (vec![Parked], true, true, false),
            (vec![Succeeded, Unknown], false, false, false),
            (AttemptState::iter().collect(), true, true, true),
            (vec![], true, false, false),
            (vec![], false, false, true),
        ] {
            let filter = AttemptFilter {
                states,
                failed,
                overdue,
                doubtful,
                after: ReturnId(7),
                limit: 100,
            };
            let explain = filter.fetch("EXPLAIN FORMAT=TRADITIONAL", conn).await;
            let steps = explain.expect("a plan");
            let plan: Vec<(String, String)> =
                steps.iter().filter_map(|step| key_of(step, &[])).collect();
            let by = |table: &str, key: &str| {
                let uses = plan
                    .iter()
                    .filter(|(t, k)| (t.as_str(), k.as_str()) == (table, key));
                uses.count()
            };
            let by_state = filter.states.len() + filter.overdue_states().count();
            assert_eq!(by("refunds", "due"), by_state, "{plan:?}");
            assert_eq!(
                by("returns", "status_updated"),
                usize::from(failed),
                "{plan:?}"
            );
            let doubts = usize::from(doubtful);
            assert_eq!(by("e", "type_created"), doubts, "{plan:?}");
            assert_eq!(by("r", "PRIMARY"), 1, "{plan:?}");
            assert_eq!(by("f", "PRIMARY"), 1 + doubts, "{plan:?}");
        }
    }
}
