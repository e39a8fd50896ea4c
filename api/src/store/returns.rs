//! Returns: read one by one and in pages, and looked up after the response to COMMIT was lost.

use std::collections::HashSet;

use serde_json::json;
use shared::domain::ids::{CustomerId, EventId, OrderId, ReturnId};
use shared::domain::money::Money;
use shared::domain::row::decode_enum;
use shared::domain::status::Status;
use shared::domain::transition::{Applied, Filed};
use sqlx::mysql::{MySqlExecutor, MySqlRow};
use sqlx::{MySqlConnection, QueryBuilder, Row};
use time::OffsetDateTime;

/// A return as its owner or an admin sees it.
#[derive(Debug, Clone)]
pub(crate) struct ReturnRow {
    pub(crate) id: ReturnId,
    pub(crate) order_id: OrderId,
    pub(crate) customer_id: CustomerId,
    /// The admin who filed it for the customer.
    pub(crate) filed_by: Option<i64>,
    pub(crate) reason: String,
    pub(crate) reason_code: Option<String>,
    pub(crate) status: Status,
    pub(crate) version: i32,
    pub(crate) review_required: bool,
    pub(crate) refund_amount: Money,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
}

const RETURN_COLUMNS: &str = "id, order_id, customer_id, filed_by, reason, reason_code, status, version, review_required, \
                              refund_amount, currency, created_at, updated_at";

pub(crate) async fn get_return<'e>(
    executor: impl MySqlExecutor<'e>,
    id: ReturnId,
) -> sqlx::Result<Option<ReturnRow>> {
    QueryBuilder::new(format!(
        "/* get_return */ SELECT {RETURN_COLUMNS} FROM returns WHERE id = "
    ))
    .push_bind(id)
    .build()
    .fetch_optional(executor)
    .await?
    .as_ref()
    .map(return_row)
    .transpose()
}

/// The owner of a return, and nothing else of the row.
pub(crate) async fn owner_of(
    conn: &mut MySqlConnection,
    id: ReturnId,
) -> sqlx::Result<Option<CustomerId>> {
    sqlx::query_scalar("/* owner_of */ SELECT customer_id FROM returns WHERE id = ?")
        .bind(id)
        .fetch_optional(conn)
        .await
}

/// Whether a change is in the audit trail, for a COMMIT whose response was lost.
pub(crate) async fn has_event(conn: &mut MySqlConnection, applied: &Applied) -> sqlx::Result<bool> {
    let found: Option<EventId> = sqlx::query_scalar(
        "/* has_event */ SELECT event_id FROM return_events FORCE INDEX (return_seq) WHERE return_id = ? AND seq = ?",
    )
    .bind(applied.return_id)
    .bind(applied.seq)
    .fetch_optional(conn)
    .await?;
    Ok(found == Some(applied.event_id))
}

/// Which returns to read. Every field narrows the filter.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReturnFilter {
    /// Only this customer's, whatever else is asked for.
    pub(crate) owner: Option<CustomerId>,
    pub(crate) status: Option<Status>,
    /// Only returns that wait for an admin's approval.
    pub(crate) in_review: bool,
    pub(crate) order_id: Option<OrderId>,
    pub(crate) customer_id: Option<CustomerId>,
    pub(crate) created_from: Option<OffsetDateTime>,
    pub(crate) created_before: Option<OffsetDateTime>,
    /// The last row of the previous page.
    pub(crate) after: Option<(OffsetDateTime, ReturnId)>,
}

impl ReturnFilter {
    /// The narrowest index that has the list's order. It is forced, because with the statistics of a small table, or for a
    /// status that most rows have, the optimizer picks an index that needs a sort. The few returns of one order are sorted.
    fn index(&self) -> &'static str {
        if self.order_id.is_some() {
            "order_id"
        } else if self.owner.is_some() || self.customer_id.is_some() {
            "customer"
        } else if self.in_review {
            "status_updated"
        } else if self.status.is_some() {
            "status_created"
        } else {
            "created"
        }
    }

    /// The column of the order. A return that waits for a review has not changed since it was filed, so both of its times
    /// are the same; the index of the reviews has the second.
    fn time(&self) -> &'static str {
        match self.index() {
            "status_updated" => "updated_at",
            _ => "created_at",
        }
    }
}

/// At most `limit` returns, newest first. Keyset pagination, never OFFSET: every page costs the same.
pub(crate) async fn list_returns(
    conn: &mut MySqlConnection,
    filter: &ReturnFilter,
    limit: u32,
) -> sqlx::Result<Vec<ReturnRow>> {
    let mut query = QueryBuilder::new(format!(
        "/* list_returns */ SELECT /*+ MAX_EXECUTION_TIME(5000) */ {RETURN_COLUMNS} FROM returns \
         FORCE INDEX ({}) WHERE TRUE",
        filter.index()
    ));
    let time = filter.time();
    if filter.in_review {
        query.push(" AND status = 'initiated' AND review_required = 1");
    }
    if let Some(owner) = filter.owner {
        query.push(" AND customer_id = ").push_bind(owner);
    }
    if let Some(status) = filter.status {
        query.push(" AND status = ").push_bind(status.as_str());
    }
    if let Some(order_id) = filter.order_id {
        query.push(" AND order_id = ").push_bind(order_id);
    }
    if let Some(customer_id) = filter.customer_id {
        query.push(" AND customer_id = ").push_bind(customer_id);
    }
    if let Some(from) = filter.created_from {
        query.push(format!(" AND {time} >= ")).push_bind(from);
    }
    if let Some(before) = filter.created_before {
        query.push(format!(" AND {time} < ")).push_bind(before);
    }
    if let Some((created_at, id)) = filter.after {
        // The first condition lets the index range start here; a row constructor alone would not.
        query
            .push(format!(" AND {time} <= "))
            .push_bind(created_at)
            .push(format!(" AND ({time} < "))
            .push_bind(created_at)
            .push(" OR id < ")
            .push_bind(id)
            .push(")");
    }
    query
        .push(format!(" ORDER BY {time} DESC, id DESC LIMIT "))
        .push_bind(limit);
    query
        .build()
        .fetch_all(conn)
        .await?
        .iter()
        .map(return_row)
        .collect()
}

fn return_row(row: &MySqlRow) -> sqlx::Result<ReturnRow> {
    Ok(ReturnRow {
        id: row.try_get("id")?,
        order_id: row.try_get("order_id")?,
        customer_id: row.try_get("customer_id")?,
        filed_by: row.try_get("filed_by")?,
        reason: row.try_get("reason")?,
        reason_code: row.try_get("reason_code")?,
        status: decode_enum(row, "status")?,
        version: row.try_get("version")?,
        review_required: row.try_get("review_required")?,
        refund_amount: Money::from_row(row, "refund_amount")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

/// The ids of those returns that exist, found by the event id of their first event, for a COMMIT whose response was lost.
/// Searches all returns of each order, because the id may meanwhile belong to another return.
pub(crate) async fn find_by_first_event(
    conn: &mut MySqlConnection,
    filed: &[Filed],
) -> sqlx::Result<HashSet<i64>> {
    let wanted: Vec<_> = filed
        .iter()
        .map(|row| json!({"order_id": row.order_id, "event": row.event_id.0.simple().to_string()}))
        .collect();
    let found: Vec<i64> = sqlx::query_scalar(
        "/* find_by_first_event */ SELECT r.id \
         FROM JSON_TABLE(?, '$[*]' COLUMNS (order_id BIGINT PATH '$.order_id', event CHAR(32) PATH '$.event')) AS wanted \
         STRAIGHT_JOIN returns AS r FORCE INDEX (order_id) ON r.order_id = wanted.order_id \
         STRAIGHT_JOIN return_events AS e FORCE INDEX (return_seq) ON e.return_id = r.id AND e.seq = 1 \
         WHERE e.event_id = UNHEX(wanted.event)",
    )
    .bind(json!(wanted).to_string())
    .fetch_all(conn)
    .await?;
    Ok(found.into_iter().collect())
}
