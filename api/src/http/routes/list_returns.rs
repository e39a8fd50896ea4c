//! `GET /returns`: keyset pages, newest first: of all returns for admins, of their own for customers.

use serde::Deserialize;
use shared::auth::{Operation, Request, Role};
use shared::domain::ids::{CustomerId, OrderId, ReturnId};
use shared::domain::status::Status;
use shared::runtime::db::DbError;
use strum::EnumString;
use utoipa::{IntoParams, ToSchema};
use warp::reply::Response;

use crate::error::ApiError;
use crate::http::call::Call;
use crate::http::query::{self, Page, ParameterReader, TimePageParameters};
use crate::http::views::ReturnView;
use crate::store::{self, ReturnFilter, ReturnRow};

/// The parameters as text. Each is parsed on its own, so that the response names every wrong one.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Parameters {
    /// Only returns in this state.
    #[param(value_type = Option<Status>, nullable = false, inline)]
    status: Option<String>,
    /// Only returns that wait for an admin's approval: `initiated`, with `review_required`.
    #[param(value_type = Option<Review>, nullable = false, inline)]
    review: Option<String>,
    /// Only returns of this order.
    #[param(value_type = Option<i64>, nullable = false)]
    order_id: Option<String>,
    /// Only returns of this customer.
    #[param(value_type = Option<i64>, nullable = false)]
    customer_id: Option<String>,
    #[serde(flatten)]
    #[param(ignore)]
    page: TimePageParameters,
}

/// A value of the filter.
#[derive(Debug, Clone, Copy, EnumString, ToSchema)]
#[schema(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
enum Review {
    Required,
}

pub(super) async fn handle(call: Call) -> Result<Response, ApiError> {
    let credential = call.authenticate()?;
    let operation = match credential.role() {
        Role::Customer => Operation::ReturnsListOwn,
        Role::Admin | Role::Auditor => Operation::ReturnsList,
    };
    let caller = credential.caller_for(&Request::of(operation))?;
    let (mut filter, limit) = parse(&call.query)?;
    if operation == Operation::ReturnsListOwn {
        filter.owner = Some(CustomerId(caller.user));
    }
    let state = &call.state;
    // One more than the limit shows whether there is a next page.
    let rows = state
        .reads
        .run("list_returns", state.read_deadline, move |conn| {
            Box::pin(async move {
                let rows = store::list_returns(conn, &filter, limit + 1).await;
                rows.map_err(DbError::from)
            })
        });
    let position = |row: &ReturnRow| query::cursor(row.created_at, row.id.0);
    Ok(Page::<ReturnView>::of(rows.await?, limit, position).response(&call.query))
}

fn parse(query: &str) -> Result<(ReturnFilter, u32), ApiError> {
    let parameters: Parameters = query::parameters(query)?;
    let mut read = ParameterReader::default();
    let review = read.field("review", parameters.review, "required", |name| {
        name.parse::<Review>().ok()
    });
    let filter = ReturnFilter {
        in_review: review.is_some(),
        status: read.field("status", parameters.status, "a status", |name| {
            name.parse::<Status>().ok()
        }),
        order_id: read.number("order_id", parameters.order_id, OrderId),
        customer_id: read.number("customer_id", parameters.customer_id, CustomerId),
        ..ReturnFilter::default()
    };
    let page = read.time_page(parameters.page);
    read.finish()?;
    let filter = ReturnFilter {
        created_from: page.created_from,
        created_before: page.created_before,
        after: page
            .after
            .map(|(created_at, id)| (created_at, ReturnId(id))),
        ..filter
    };
    Ok((filter, page.limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_parameter_is_named() {
        let Err(ApiError::InvalidFields(errors)) =
            parse("review=yes&status=lost&order_id=x&limit=201&cursor=1&created_from=yesterday")
        else {
            panic!("expected invalid fields");
        };
        let fields: Vec<&str> = errors
            .iter()
            .filter_map(|error| error.parameter.as_deref())
            .collect();
        assert_eq!(
            fields,
            [
                "review",
                "status",
                "order_id",
                "created_from",
                "cursor",
                "limit"
            ]
        );
    }

    #[test]
    fn unknown_and_repeated_parameters_are_refused() {
        for query in ["offset=10", "limit=1&limit=2"] {
            assert!(
                matches!(parse(query), Err(ApiError::BadRequest(_))),
                "{query}"
            );
        }
    }
}
