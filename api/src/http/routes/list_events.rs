//! `GET /events`: the audit trail of all returns, for auditors and admins. Pages newest first, or an export of all.

use serde::Deserialize;
use shared::auth::{Operation, Request};
use shared::domain::actor::ActorType;
use shared::domain::ids::{OrderId, ReturnId};
use shared::domain::status::event_types;
use utoipa::IntoParams;
use warp::reply::Response;

use super::export;
use crate::audit::{AuditReads, Scope};
use crate::error::ApiError;
use crate::http::accept::Form;
use crate::http::call::Call;
use crate::http::query::{self, Page, ParameterReader, TimePageParameters};
use crate::http::views::{EventType, EventView};
use crate::store::{EventFilter, EventRow, Position, Walk};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Parameters {
    /// Only events of this return.
    #[param(value_type = Option<i64>, nullable = false)]
    return_id: Option<String>,
    /// Only events of this order's returns.
    #[param(value_type = Option<i64>, nullable = false)]
    order_id: Option<String>,
    /// Only events by this kind of actor.
    #[param(value_type = Option<ActorType>, nullable = false, inline)]
    actor_type: Option<String>,
    /// Only events by this actor.
    #[param(
        nullable = false,
        min_length = 1,
        max_length = 64,
        pattern = "^[!-~]+$"
    )]
    actor_id: Option<String>,
    /// Only events of this type.
    #[param(value_type = Option<EventType>, nullable = false, inline)]
    event_type: Option<String>,
    #[serde(flatten)]
    #[param(ignore)]
    page: TimePageParameters,
}

/// The query of a request.
#[derive(Debug)]
struct EventQuery {
    filter: EventFilter,
    after: Option<Position>,
    limit: u32,
}

pub(super) async fn handle(call: Call) -> Result<Response, ApiError> {
    let (credential, request) = (call.authenticate()?, Request::of(Operation::EventsList));
    credential.caller_for(&request)?;
    let form = Form::accepted(&call.headers)?;
    let wanted = parse(&call.query, form)?;
    let (audit, scope) = (&call.state.audit, Scope::Filtered(wanted.filter.clone()));
    audit.check_whole(&scope).await?;
    match form {
        Form::Pages => page(audit, wanted, &call.query).await,
        Form::Export(format) => {
            let grant = credential.grant(request);
            export::begin(audit, &call.connection, grant, scope, format).await
        }
    }
    .map(Form::vary)
}

async fn page(audit: &AuditReads, wanted: EventQuery, query: &str) -> Result<Response, ApiError> {
    let walk = Walk::NewestFirst(wanted.after);
    // One more than the limit shows whether there is a next page.
    let rows = audit.list(wanted.filter, walk, wanted.limit + 1).await?;
    let position = |row: &EventRow| query::cursor(row.position.created_at, row.position.id);
    Ok(Page::<EventView>::of(rows, wanted.limit, position).response(query))
}

fn parse(query: &str, form: Form) -> Result<EventQuery, ApiError> {
    let parameters: Parameters = query::parameters(query)?;
    let mut read = ParameterReader::default();
    let filter = EventFilter {
        return_id: read.number("return_id", parameters.return_id, ReturnId),
        order_id: read.number("order_id", parameters.order_id, OrderId),
        actor_type: read.field(
            "actor_type",
            parameters.actor_type,
            "a type of actor",
            |name| name.parse::<ActorType>().ok(),
        ),
        actor_id: read.field(
            "actor_id",
            parameters.actor_id,
            "1 to 64 visible ASCII characters",
            |text| query::ascii(text, b'!'),
        ),
        event_type: read.field(
            "event_type",
            parameters.event_type,
            "a type of event",
            |name| event_types().find(|known| *known == name),
        ),
        ..EventFilter::default()
    };
    if form != Form::Pages {
        read.not_in_an_export("limit", parameters.page.limit.as_deref());
        read.not_in_an_export("cursor", parameters.page.cursor.as_deref());
    }
    let page = read.time_page(parameters.page);
    read.finish()?;
    let filter = EventFilter {
        created_from: page.created_from,
        created_before: page.created_before,
        ..filter
    };
    let position = |(created_at, id)| Position { created_at, id };
    Ok(EventQuery {
        filter,
        after: page.after.map(position),
        limit: page.limit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::accept::Format;

    fn wrong(query: &str, form: Form) -> Vec<String> {
        let Err(ApiError::InvalidFields(errors)) = parse(query, form) else {
            panic!("expected invalid fields: {query}");
        };
        errors
            .into_iter()
            .filter_map(|error| error.parameter)
            .collect()
    }

    #[test]
    fn every_wrong_parameter_is_named() {
        let query = "return_id=x&order_id=1.5&actor_type=robot&actor_id=&event_type=return.refunded&created_from=1\
                     &created_before=2026-11-27&cursor=7&limit=0";
        let names: Vec<&str> = query
            .split('&')
            .filter_map(|pair| Some(pair.split_once('=')?.0))
            .collect();
        assert_eq!(wrong(query, Form::Pages), names);
    }

    #[test]
    fn an_export_has_neither_a_limit_nor_a_cursor() {
        let export = Form::Export(Format::Csv);
        assert_eq!(wrong("limit=5&cursor=1-2", export), ["limit", "cursor"]);
        assert!(parse("actor_id=42", export).is_ok());
    }

    #[test]
    fn filters_are_read() {
        let query = "return_id=3&order_id=4&actor_type=customer&actor_id=42&event_type=return.initiated\
                     &created_from=2026-11-27T00:00:00Z&created_before=2026-11-28T00:00:00Z&cursor=1000-7&limit=3";
        let EventQuery {
            filter,
            after,
            limit,
        } = parse(query, Form::Pages).expect("good");
        assert_eq!(
            (filter.return_id, filter.order_id, filter.actor_type),
            (
                Some(ReturnId(3)),
                Some(OrderId(4)),
                Some(ActorType::Customer)
            )
        );
        assert_eq!(filter.actor_id.as_deref(), Some("42"));
        assert_eq!(filter.event_type, Some("return.initiated"));
        assert!(filter.created_from < filter.created_before);
        assert_eq!((after.map(|after| after.id), limit), (Some(7), 3));
    }
}
