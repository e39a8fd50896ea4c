//! `GET /orders`: a customer's own orders, and whether each may be returned. What is refused later is told here first.

use serde::{Deserialize, Serialize};
use shared::auth::{Operation, Request};
use shared::domain::eligibility::{self, PolicyArgs, Violation};
use shared::domain::ids::{CustomerId, OrderId, ReturnId};
use shared::domain::timestamp::timestamp_text;
use utoipa::{IntoParams, ToSchema};
use warp::reply::Response;

use super::query::{self, Page, Reader};
use super::show_return::MoneyView;
use crate::auth::Credential;
use crate::error::ApiError;
use crate::lane::Lane;
use crate::store::{self, OrderRow};

/// An order as its customer sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Order)]
pub(crate) struct OrderView {
    #[schema(value_type = i64, minimum = 1)]
    order_id: OrderId,
    /// As the shop calls it.
    #[schema(example = "delivered")]
    status: String,
    #[schema(required, format = "date-time")]
    delivered_at: Option<String>,
    total: MoneyView,
    /// What was paid back already.
    refunded: MoneyView,
    /// Whether a return would be taken now.
    returnable: bool,
    /// Every reason against it.
    reasons: Vec<Violation>,
    /// The open return, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, nullable = false, minimum = 1)]
    open_return_id: Option<ReturnId>,
}

impl OrderView {
    /// `None` for an order of the shop's that cannot be understood; the log says why.
    fn new(order: &OrderRow, policy: &PolicyArgs) -> Option<Self> {
        let facts = order.facts.as_ref()?;
        let open = order.open_return.is_some();
        let reasons = eligibility::violations(facts, open, order.now, policy);
        Some(Self {
            order_id: facts.id,
            status: facts.status.clone(),
            delivered_at: facts.delivered_at.map(timestamp_text),
            total: MoneyView::from(&facts.total),
            refunded: MoneyView::from(&facts.refunded_amount),
            returnable: reasons.is_empty(),
            reasons,
            open_return_id: order.open_return,
        })
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    /// Orders on a page.
    #[param(value_type = Option<u32>, nullable = false, minimum = 1, maximum = 200, default = 50)]
    limit: Option<String>,
    /// `next_cursor` of the page before.
    #[param(value_type = Option<i64>, nullable = false)]
    cursor: Option<String>,
}

pub(super) async fn handle(
    credential: Result<Credential, ApiError>,
    query: String,
    policy: PolicyArgs,
    reads: Lane,
) -> Result<Response, ApiError> {
    let credential = credential?;
    let caller = credential.caller_for(&Request::of(Operation::OrdersList))?;
    let customer = CustomerId(caller.user);
    let (before, limit) = parse(&query)?;
    // One more than asked for tells whether there is a next page.
    let orders = reads
        .query(move |conn| Box::pin(store::list_orders(conn, customer, before, limit + 1)))
        .await?;
    let page = Page::<OrderRow>::of(orders, limit, |order| order.id.to_string());
    let page = page.filter_map(|order| OrderView::new(&order, &policy));
    Ok(page.answer(&query))
}

/// Below which id, and how many.
fn parse(query: &str) -> Result<(Option<OrderId>, u32), ApiError> {
    let parameters: Parameters = query::parameters(query)?;
    let mut read = Reader::default();
    let before = read.cursor(parameters.cursor, |text| query::number(text).map(OrderId));
    let limit = read.limit(parameters.limit);
    read.finish()?;
    Ok((before, limit))
}
