//! `GET /returns/{id}`: one return, for its owner or an admin.

use serde::Serialize;
use shared::audit::timestamp_text;
use shared::auth::{Operation, Request};
use shared::ids::{OrderId, ReturnId};
use shared::status::Status;
use sqlx::mysql::MySqlPool;
use warp::Reply;
use warp::http::{HeaderValue, StatusCode, header};
use warp::reply::Response;

use crate::auth::Credential;
use crate::error::ApiError;
use crate::store::{self, ReturnRow};

/// A return as JSON. Money is a decimal string plus currency, times are RFC 3339 in UTC.
#[derive(Debug, Serialize)]
pub(super) struct ReturnView {
    return_id: ReturnId,
    order_id: OrderId,
    customer_id: i64,
    status: Status,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<String>,
    review_required: bool,
    refund: MoneyView,
    version: i32,
    created_at: String,
    updated_at: String,
}

#[derive(Debug, Serialize)]
struct MoneyView {
    amount: String,
    currency: String,
}

impl From<ReturnRow> for ReturnView {
    fn from(row: ReturnRow) -> Self {
        Self {
            return_id: row.id,
            order_id: row.order_id,
            customer_id: row.customer_id.0,
            status: row.status,
            reason: row.reason,
            reason_code: row.reason_code,
            review_required: row.review_required,
            refund: MoneyView {
                amount: row.refund_amount.decimal_text(),
                currency: row.refund_amount.currency.to_string(),
            },
            version: row.version,
            created_at: timestamp_text(row.created_at),
            updated_at: timestamp_text(row.updated_at),
        }
    }
}

pub(super) async fn handle(
    id: String,
    credential: Result<Credential, ApiError>,
    if_none_match: Option<String>,
    pool: MySqlPool,
) -> Result<Response, ApiError> {
    let credential = credential?;
    // What is no number names nothing, as any other unknown id: ids begin at 1.
    let id = ReturnId(id.parse().unwrap_or(0));
    // Spawned: a client that hangs up must not drop a query half way.
    let row = tokio::spawn(async move { store::get_return(&pool, id).await })
        .await
        .map_err(|_| ApiError::Internal)?
        .map_err(|error| ApiError::from_database(&error))?;
    // Asked for one that does not exist as well: someone else's must not be told from none.
    let owner = row.as_ref().map(|row| row.customer_id);
    credential.caller_for(&Request::about(Operation::ReturnsRead, id, owner))?;
    let row = row.ok_or(ApiError::NotFound)?;
    let etag = format!("\"{}\"", row.version);
    let mut response = if if_none_match.is_some_and(|tags| matches(&tags, &etag)) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        warp::reply::json(&ReturnView::from(row)).into_response()
    };
    let etag = HeaderValue::from_str(&etag).expect("digits and quotes are visible ASCII");
    response.headers_mut().insert(header::ETAG, etag);
    Ok(response)
}

/// `If-None-Match`: a list of tags, weak or strong, or `*` (RFC 9110, 13.1.2).
fn matches(tags: &str, etag: &str) -> bool {
    tags.split(',').map(str::trim).any(|tag| {
        let strong = tag.strip_prefix("W/").unwrap_or(tag);
        tag == "*" || strong == etag
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_match_weakly() {
        for tags in ["\"4\"", "W/\"4\"", "\"3\", \"4\"", "*"] {
            assert!(matches(tags, "\"4\""), "{tags}");
        }
        assert!(!matches("\"3\"", "\"4\""));
    }
}
