//! `GET /operator-actions`: what people did with `returnsctl`, and why, for auditors and admins. Newest first.

use serde::Deserialize;
use shared::auth::{Operation, Request};
use shared::domain::ids::ReturnId;
use utoipa::IntoParams;
use warp::reply::Response;

use crate::error::ApiError;
use crate::http::call::Call;
use crate::http::query::{self, Page, ParameterReader, TimePageParameters};
use crate::http::views::OperatorActionView;
use crate::store::{OperatorActionFilter, OperatorActionRow, OperatorType, Position};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Parameters {
    /// Only actions about this return.
    #[param(value_type = Option<i64>, nullable = false)]
    return_id: Option<String>,
    /// `admin`: known by a token; `operator`: by the name that was typed.
    #[param(value_type = Option<OperatorType>, nullable = false, inline)]
    actor_type: Option<String>,
    /// Only actions of this person: the number of an admin, or the name of an operator.
    #[param(
        nullable = false,
        min_length = 1,
        max_length = 64,
        pattern = "^[ -~]+$"
    )]
    actor_id: Option<String>,
    /// Only this kind of action, such as `refund.retry`.
    #[param(
        nullable = false,
        min_length = 1,
        max_length = 64,
        pattern = "^[!-~]+$"
    )]
    verb: Option<String>,
    #[serde(flatten)]
    #[param(ignore)]
    page: TimePageParameters,
}

pub(super) async fn handle(call: Call) -> Result<Response, ApiError> {
    let credential = call.authenticate()?;
    credential.caller_for(&Request::of(Operation::OperatorActionsList))?;
    let (filter, limit) = parse(&call.query)?;
    // One more than the limit shows whether there is a next page.
    let rows = call.state.audit.operator_actions(filter, limit + 1).await?;
    let position =
        |row: &OperatorActionRow| query::cursor(row.position.created_at, row.position.id);
    Ok(Page::<OperatorActionView>::of(rows, limit, position).response(&call.query))
}

fn parse(query: &str) -> Result<(OperatorActionFilter, u32), ApiError> {
    let parameters: Parameters = query::parameters(query)?;
    let mut read = ParameterReader::default();
    let filter = OperatorActionFilter {
        return_id: read.number("return_id", parameters.return_id, ReturnId),
        actor_type: read.field(
            "actor_type",
            parameters.actor_type,
            "admin or operator",
            |name| name.parse::<OperatorType>().ok(),
        ),
        actor_id: read.field(
            "actor_id",
            parameters.actor_id,
            "1 to 64 printable ASCII characters",
            |text| query::ascii(text, b' '),
        ),
        verb: read.field(
            "verb",
            parameters.verb,
            "1 to 64 visible ASCII characters",
            |text| query::ascii(text, b'!'),
        ),
        ..OperatorActionFilter::default()
    };
    let page = read.time_page(parameters.page);
    read.finish()?;
    let filter = OperatorActionFilter {
        created_from: page.created_from,
        created_before: page.created_before,
        after: page
            .after
            .map(|(created_at, id)| Position { created_at, id }),
        ..filter
    };
    Ok((filter, page.limit))
}
