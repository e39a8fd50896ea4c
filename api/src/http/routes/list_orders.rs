//! `GET /orders`: a customer's own orders, and whether each may be returned. A filing is checked by the same rules.

use serde::Deserialize;
use shared::auth::{Operation, Request};
use shared::domain::ids::{CustomerId, OrderId};
use shared::runtime::db::DbError;
use utoipa::IntoParams;
use warp::reply::Response;

use crate::error::ApiError;
use crate::http::call::Call;
use crate::http::query::{self, Page, ParameterReader};
use crate::http::views::OrderView;
use crate::store::{self, OrderRow};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Parameters {
    /// Orders on a page.
    #[param(value_type = Option<u32>, nullable = false, minimum = 1, maximum = 200, default = 50)]
    limit: Option<String>,
    /// `next_cursor` of the previous page.
    #[param(value_type = Option<i64>, nullable = false)]
    cursor: Option<String>,
}

pub(super) async fn handle(call: Call) -> Result<Response, ApiError> {
    let credential = call.authenticate()?;
    let caller = credential.caller_for(&Request::of(Operation::OrdersList))?;
    let customer = CustomerId(caller.user);
    let (before, limit) = parse(&call.query)?;
    let state = &call.state;
    // One more than the limit shows whether there is a next page.
    let orders = state
        .reads
        .run("list_orders", state.read_deadline, move |conn| {
            Box::pin(async move {
                let orders = store::list_orders(conn, customer, before, limit + 1).await;
                orders.map_err(DbError::from)
            })
        });
    let page = Page::<OrderRow>::of(orders.await?, limit, |order| order.facts.id.to_string());
    let page = page.map(|order| OrderView::new(&order, &state.policy));
    Ok(page.response(&call.query))
}

/// The id below which the page begins, and the limit.
fn parse(query: &str) -> Result<(Option<OrderId>, u32), ApiError> {
    let parameters: Parameters = query::parameters(query)?;
    let mut read = ParameterReader::default();
    let before = read.cursor(parameters.cursor, |text| query::number(text).map(OrderId));
    let limit = read.limit(parameters.limit);
    read.finish()?;
    Ok((before, limit))
}
