//! What an operator reads about returns. No read locks, and each uses an index.

use shared::domain::ids::{CustomerId, EventId, OrderId, ReturnId};
use shared::domain::money::Money;
use shared::domain::row::decode_enum;
use shared::domain::status::Status;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, FromRow, QueryBuilder, Row};
use time::OffsetDateTime;

/// A return as it is.
#[derive(Debug, Clone)]
pub(crate) struct ReturnRow {
    pub(crate) order_id: OrderId,
    pub(crate) customer_id: CustomerId,
    /// The admin who filed it for the customer.
    pub(crate) filed_by: Option<i64>,
    pub(crate) status: Status,
    pub(crate) version: i32,
    pub(crate) review_required: bool,
    pub(crate) reason: String,
    pub(crate) reason_code: Option<String>,
    pub(crate) refund_amount: Money,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
    /// The database's clock.
    pub(crate) now: OffsetDateTime,
}

pub(crate) async fn read_return(
    conn: &mut MySqlConnection,
    id: ReturnId,
) -> sqlx::Result<Option<ReturnRow>> {
    let row = sqlx::query(
        "/* read_return */ SELECT order_id, customer_id, filed_by, status, version, review_required, reason, reason_code, \
         refund_amount, currency, created_at, updated_at, UTC_TIMESTAMP(6) AS now FROM returns WHERE id = ?",
    )
    .bind(id)
    .fetch_optional(conn)
    .await?;
    let read = |row: MySqlRow| {
        Ok(ReturnRow {
            order_id: row.try_get("order_id")?,
            customer_id: row.try_get("customer_id")?,
            filed_by: row.try_get("filed_by")?,
            status: decode_enum(&row, "status")?,
            version: row.try_get("version")?,
            review_required: row.try_get("review_required")?,
            reason: row.try_get("reason")?,
            reason_code: row.try_get("reason_code")?,
            refund_amount: Money::from_row(&row, "refund_amount")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
            now: row.try_get("now")?,
        })
    };
    row.map(read).transpose()
}

/// A row of `return_events`, without its payload and hashes.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct Event {
    pub(crate) seq: i32,
    pub(crate) event_id: EventId,
    pub(crate) event_type: String,
    pub(crate) actor_type: String,
    pub(crate) actor_id: String,
    pub(crate) created_at: OffsetDateTime,
}

/// The history of a return, ascending.
pub(crate) async fn read_events(
    conn: &mut MySqlConnection,
    id: ReturnId,
) -> sqlx::Result<Vec<Event>> {
    sqlx::query_as(
        "/* read_events */ SELECT seq, event_id, event_type, actor_type, actor_id, created_at FROM return_events \
         WHERE return_id = ? ORDER BY seq",
    )
    .bind(id)
    .fetch_all(conn)
    .await
}

/// A return in a list.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) id: ReturnId,
    pub(crate) order_id: OrderId,
    pub(crate) customer_id: CustomerId,
    pub(crate) status: Status,
    pub(crate) version: i32,
    pub(crate) review_required: bool,
    pub(crate) refund_amount: Money,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
    pub(crate) unchanged_secs: f64,
}

const LISTED: &str = "r.id, r.order_id, r.customer_id, r.status, r.version, r.review_required, r.refund_amount, \
                      r.currency, r.created_at, r.updated_at, \
                      TIMESTAMPDIFF(MICROSECOND, r.updated_at, UTC_TIMESTAMP(6)) / 1e6 AS unchanged_secs";

/// Which returns to list. Every field narrows the filter.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReturnFilter {
    pub(crate) status: Option<Status>,
    pub(crate) in_review: bool,
    pub(crate) order: Option<OrderId>,
    pub(crate) customer: Option<CustomerId>,
    /// The last row of the page before.
    pub(crate) after: Option<(OffsetDateTime, ReturnId)>,
    pub(crate) limit: i64,
}

impl ReturnFilter {
    /// An index that has the order of the list, and the column of that order. What waits for a review has not changed since
    /// it was filed, so both of its times are the same. The few returns of one order are sorted.
    fn index(&self) -> (&'static str, &'static str) {
        if self.order.is_some() {
            ("order_id", "created_at")
        } else if self.customer.is_some() {
            ("customer", "created_at")
        } else if self.in_review {
            ("status_updated", "updated_at")
        } else if self.status.is_some() {
            ("status_created", "created_at")
        } else {
            ("created", "created_at")
        }
    }

    async fn fetch(&self, prefix: &str, conn: &mut MySqlConnection) -> sqlx::Result<Vec<MySqlRow>> {
        let (index, time) = self.index();
        let mut query = QueryBuilder::new(format!(
            "{prefix} SELECT {LISTED} FROM returns AS r FORCE INDEX ({index}) WHERE TRUE"
        ));
        if let Some(status) = self.status {
            query.push(" AND r.status = ").push_bind(status.as_str());
        }
        if self.in_review {
            query.push(" AND r.status = 'initiated' AND r.review_required = 1");
        }
        if let Some(order) = self.order {
            query.push(" AND r.order_id = ").push_bind(order);
        }
        if let Some(customer) = self.customer {
            query.push(" AND r.customer_id = ").push_bind(customer);
        }
        if let Some((at, id)) = self.after {
            query.push(format!(" AND r.{time} >= ")).push_bind(at);
            query.push(format!(" AND (r.{time} > ")).push_bind(at);
            query.push(" OR r.id > ").push_bind(id).push(")");
        }
        query.push(format!(" ORDER BY r.{time}, r.id LIMIT "));
        query.push_bind(self.limit);
        query.build().fetch_all(conn).await
    }
}

/// Returns in the order in which they were filed.
pub(crate) async fn list_returns(
    conn: &mut MySqlConnection,
    filter: &ReturnFilter,
) -> sqlx::Result<Vec<Listed>> {
    let rows = filter.fetch("/* list_returns */", conn).await?;
    rows.iter().map(listed).collect()
}

/// When a return was filed, for the place after it.
pub(crate) async fn time_of_return(
    conn: &mut MySqlConnection,
    id: ReturnId,
) -> sqlx::Result<Option<OffsetDateTime>> {
    sqlx::query_scalar("/* time_of_return */ SELECT created_at FROM returns WHERE id = ?")
        .bind(id)
        .fetch_optional(conn)
        .await
}

/// A consumer claims a return within seconds; promise P6 allows five minutes.
const CLAIMED_WITHIN_SECS: i64 = 300;
/// The provider may need time; an hour is the limit of the alarm too.
const REFUNDED_WITHIN_SECS: i64 = 3_600;

/// Each state is a source of its own, which gives its oldest changes; their age is compared afterwards: with the statistics
/// of an empty table MySQL reads the whole index rather than a range of it by time.
fn stuck_sql() -> String {
    let source = |status: &str, review_required: u8, and: &str| {
        format!(
            "(SELECT w.id FROM returns AS w FORCE INDEX (status_updated) WHERE w.status = '{status}' \
             AND w.review_required = {review_required}{and} ORDER BY w.updated_at LIMIT ?)"
        )
    };
    let unparked = " AND NOT EXISTS (SELECT 1 FROM refunds AS p FORCE INDEX (PRIMARY) WHERE p.return_id = w.id \
                    AND p.state = 'parked')";
    let sources = [
        source("initiated", 0, ""),
        source("approved", 0, ""),
        source("approved", 1, ""),
        source("refund_pending", 0, unparked),
        source("refund_pending", 1, unparked),
    ];
    format!(
        "SELECT {LISTED} FROM ({}) AS wanted STRAIGHT_JOIN returns AS r FORCE INDEX (PRIMARY) ON r.id = wanted.id \
         WHERE r.updated_at < UTC_TIMESTAMP(6) - INTERVAL IF(r.status = 'refund_pending', {REFUNDED_WITHIN_SECS}, \
         {CLAIMED_WITHIN_SECS}) SECOND ORDER BY r.updated_at, r.id LIMIT ?",
        sources.join(" UNION ALL ")
    )
}

/// Returns that a program should have moved, the one that has waited longest first.
pub(crate) async fn list_stuck_returns(
    conn: &mut MySqlConnection,
    limit: i64,
) -> sqlx::Result<Vec<Listed>> {
    let rows = fetch_stuck("/* list_stuck_returns */", conn, limit).await?;
    rows.iter().map(listed).collect()
}

async fn fetch_stuck(
    prefix: &str,
    conn: &mut MySqlConnection,
    limit: i64,
) -> sqlx::Result<Vec<MySqlRow>> {
    let sql = format!("{prefix} {}", stuck_sql());
    // One limit for each source, and one for all of them.
    let limits = sql.matches('?').count();
    let query = sqlx::query(AssertSqlSafe(sql));
    let query = (0..limits).fold(query, |query, _| query.bind(limit));
    query.fetch_all(conn).await
}

fn listed(row: &MySqlRow) -> sqlx::Result<Listed> {
    Ok(Listed {
        id: row.try_get("id")?,
        order_id: row.try_get("order_id")?,
        customer_id: row.try_get("customer_id")?,
        status: decode_enum(row, "status")?,
        version: row.try_get("version")?,
        review_required: row.try_get("review_required")?,
        refund_amount: Money::from_row(row, "refund_amount")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        unchanged_secs: row.try_get("unchanged_secs")?,
    })
}

#[cfg(test)]
mod tests {
    use shared::test_support::TestDb;

    use super::*;
    use crate::store::explain::{key_of, refunded_long_ago};

    /// With the statistics of empty tables, and with those of many returns that were refunded long ago.
    #[tokio::test]
    async fn lists_are_found_by_indexes_alone() {
        let db = TestDb::create().await;
        let mut conn = db.pool.acquire().await.expect("a connection");
        every_plan(&mut conn).await;
        refunded_long_ago(&db, "approved", "declined").await;
        every_plan(&mut conn).await;
    }

    async fn every_plan(conn: &mut MySqlConnection) {
        const EXPLAIN: &str = "EXPLAIN FORMAT=TRADITIONAL";
        let all = ReturnFilter {
            limit: 100,
            ..ReturnFilter::default()
        };
        for (filter, key) in [
            (all.clone(), "created"),
            (
                ReturnFilter {
                    status: Some(Status::Refunded),
                    ..all.clone()
                },
                "status_created",
            ),
            (
                ReturnFilter {
                    in_review: true,
                    ..all.clone()
                },
                "status_updated",
            ),
            (
                ReturnFilter {
                    customer: Some(CustomerId(42)),
                    ..all.clone()
                },
                "customer",
            ),
            (
                ReturnFilter {
                    order: Some(OrderId(7)),
                    ..all
                },
                "order_id",
            ),
        ] {
            let steps = filter.fetch(EXPLAIN, conn).await.expect("a plan");
            let plan: Vec<_> = steps
                .iter()
                .filter_map(|step| key_of(step, &["r"]))
                .collect();
            assert_eq!(plan, [("r".to_owned(), key.to_owned())], "{filter:?}");
        }
        let steps = fetch_stuck(EXPLAIN, conn, 100).await.expect("a plan");
        let plan: Vec<_> = steps.iter().filter_map(|step| key_of(step, &[])).collect();
        let by = |table: &str, key: &str| {
            let uses = plan
                .iter()
                .filter(|(t, k)| (t.as_str(), k.as_str()) == (table, key));
            uses.count()
        };
        assert_eq!(
            (by("w", "status_updated"), by("p", "PRIMARY")),
            (5, 2),
            "{plan:?}"
        );
    }
}
