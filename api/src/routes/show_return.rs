//! `GET /returns/{id}`: one return, for its owner or an admin.

use serde::Serialize;
use shared::auth::Operation;
use shared::domain::ids::{OrderId, ReturnId};
use shared::domain::money::Money;
use shared::domain::status::Status;
use shared::domain::timestamp::timestamp_text;
use utoipa::ToSchema;
use warp::Reply;
use warp::http::{HeaderMap, HeaderValue, StatusCode, header};
use warp::reply::Response;

use super::one_return;
use crate::auth::Credential;
use crate::error::ApiError;
use crate::etag::{Tags, etag};
use crate::lane::Lane;
use crate::store::ReturnRow;

/// A return as JSON. Money is a decimal string plus currency, times are RFC 3339 in UTC.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Return)]
pub(crate) struct ReturnView {
    #[schema(value_type = i64, minimum = 1)]
    return_id: ReturnId,
    #[schema(value_type = i64, minimum = 1)]
    order_id: OrderId,
    customer_id: i64,
    status: Status,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason_code: Option<String>,
    /// A person has to approve it before it is paid.
    review_required: bool,
    /// What is paid back, fixed at filing.
    refund: MoneyView,
    /// Raised by every change; the `ETag` is this number in quotes.
    #[schema(minimum = 1)]
    version: i32,
    #[schema(format = "date-time")]
    created_at: String,
    #[schema(format = "date-time")]
    updated_at: String,
}

/// An amount of money.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Money)]
pub(crate) struct MoneyView {
    /// Decimal, with as many places as stored.
    #[schema(pattern = r"^-?[0-9]+(\.[0-9]+)?$", example = "49.90")]
    amount: String,
    /// ISO 4217.
    #[schema(pattern = "^[A-Z]{3}$", example = "EUR")]
    currency: String,
}

impl From<&Money> for MoneyView {
    fn from(money: &Money) -> Self {
        Self {
            amount: money.decimal_text(),
            currency: money.currency.to_string(),
        }
    }
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
            refund: MoneyView::from(&row.refund_amount),
            version: row.version,
            created_at: timestamp_text(row.created_at),
            updated_at: timestamp_text(row.updated_at),
        }
    }
}

pub(super) async fn handle(
    id: String,
    credential: Result<Credential, ApiError>,
    headers: HeaderMap,
    reads: Lane,
) -> Result<Response, ApiError> {
    let (_, row) = one_return::find(&credential?, Operation::ReturnsRead, &id, &reads).await?;
    // One that cannot be read is as good as none: it would only have saved the answer's bytes.
    let known = Tags::of(&headers, &header::IF_NONE_MATCH).ok().flatten();
    if known.is_some_and(|tags| tags.match_weakly(row.version)) {
        let unchanged = StatusCode::NOT_MODIFIED.into_response();
        Ok(tagged(unchanged, row.version))
    } else {
        Ok(shown(row))
    }
}

/// A return as it is, with its `ETag`.
pub(super) fn shown(row: ReturnRow) -> Response {
    let version = row.version;
    let shown = warp::reply::json(&ReturnView::from(row)).into_response();
    tagged(shown, version)
}

fn tagged(mut response: Response, version: i32) -> Response {
    let etag = HeaderValue::from_str(&etag(version)).expect("digits and quotes are visible ASCII");
    response.headers_mut().insert(header::ETAG, etag);
    response
}
