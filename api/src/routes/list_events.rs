//! `GET /events`: the audit trail of all returns, for auditors and admins. Pages newest first, or an export of it all.

use serde::{Deserialize, Serialize};
use shared::auth::{Operation, Request};
use shared::domain::actor::ActorType;
use shared::domain::ids::{EventId, OrderId, ReturnId};
use shared::domain::timestamp::timestamp_text;
use utoipa::{IntoParams, ToSchema};
use warp::http::HeaderMap;
use warp::reply::Response;

use super::accept::Form;
use super::export::{self, Scope};
use super::query::{self, Page, Reader};
use crate::auth::Credential;
use crate::error::ApiError;
use crate::store::{self, EventFilter, EventRow, Position, Walk};
use crate::trail::Trail;

/// An event as JSON: everything that its hash covers as it was hashed, so that who reads it can check the chain.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub(crate) struct EventView {
    #[schema(value_type = i64, minimum = 1)]
    return_id: ReturnId,
    /// Position in the return's history, from 1 and without a gap.
    #[schema(minimum = 1)]
    seq: i32,
    /// The same in Kafka (`ce_id`).
    #[schema(value_type = String, format = "uuid")]
    event_id: EventId,
    #[schema(example = "return.initiated")]
    event_type: String,
    actor: ActorView,
    #[schema(required)]
    request_id: Option<String>,
    #[schema(required)]
    trace_id: Option<String>,
    #[schema(format = "date-time")]
    created_at: String,
    /// JSON as text, byte for byte: JSON within JSON would come back in another spelling, and not match the hash.
    event_data: String,
    /// `hash` of the event before; 64 zeros for the first.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    prev_hash: String,
    /// SHA-256 over all of the above.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    hash: String,
}

/// Who made a change.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Actor)]
struct ActorView {
    /// `customer`, `admin`, `policy` or `system`.
    #[serde(rename = "type")]
    kind: String,
    /// A user's number, the version of the policy, or the name of a program.
    id: String,
}

impl From<EventRow> for EventView {
    fn from(row: EventRow) -> Self {
        Self {
            return_id: row.return_id,
            seq: row.seq,
            event_id: row.event_id,
            event_type: row.event_type,
            actor: ActorView {
                kind: row.actor_type,
                id: row.actor_id,
            },
            request_id: row.request_id,
            trace_id: row.trace_id,
            created_at: timestamp_text(row.position.created_at),
            event_data: row.event_data,
            prev_hash: row.prev_hash,
            hash: row.hash,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
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
    /// Only events of this type, such as `return.refunded`.
    #[param(
        nullable = false,
        min_length = 1,
        max_length = 64,
        pattern = "^[!-~]+$"
    )]
    event_type: Option<String>,
    /// Written at this time or later.
    #[param(nullable = false, format = "date-time")]
    created_from: Option<String>,
    /// Written before this time.
    #[param(nullable = false, format = "date-time")]
    created_before: Option<String>,
    /// Events on a page. Not with an export.
    #[param(value_type = Option<u32>, nullable = false, minimum = 1, maximum = 200, default = 50)]
    limit: Option<String>,
    /// `next_cursor` of the page before. Not with an export.
    #[param(nullable = false, pattern = "^[0-9]{1,17}-[0-9]{1,18}$")]
    cursor: Option<String>,
}

/// What a request asks for.
#[derive(Debug)]
struct Asked {
    filter: EventFilter,
    after: Option<Position>,
    limit: u32,
}

pub(super) async fn handle(
    credential: Result<Credential, ApiError>,
    headers: HeaderMap,
    query: String,
    trail: Trail,
) -> Result<Response, ApiError> {
    let (credential, request) = (credential?, Request::of(Operation::EventsList));
    credential.caller_for(&request)?;
    let form = Form::accepted(&headers)?;
    let asked = parse(&query, form)?;
    match form {
        Form::Pages => page(&trail, asked, &query).await,
        Form::Export(format) => {
            let reader = export::Reader {
                credential,
                request,
            };
            export::begin(trail, reader, Scope::Filtered(asked.filter), format).await
        }
    }
    .map(Form::vary)
}

async fn page(trail: &Trail, asked: Asked, query: &str) -> Result<Response, ApiError> {
    let Asked {
        filter,
        after,
        limit,
    } = asked;
    let walk = Walk::NewestFirst(after);
    // One more than asked for tells whether there is a next page.
    let rows = trail
        .lane
        .query(move |conn| {
            Box::pin(async move { store::list_events(conn, &filter, walk, limit + 1).await })
        })
        .await?;
    let position = |row: &EventRow| query::cursor(row.position.created_at, row.position.id);
    Ok(Page::<EventView>::of(rows, limit, position).answer(query))
}

fn parse(query: &str, form: Form) -> Result<Asked, ApiError> {
    let parameters: Parameters = query::parameters(query)?;
    let mut read = Reader::default();
    let filter = EventFilter {
        return_id: read.number("return_id", parameters.return_id, ReturnId),
        order_id: read.number("order_id", parameters.order_id, OrderId),
        actor_type: read.field(
            "actor_type",
            parameters.actor_type,
            "a type of actor",
            |name| name.parse::<ActorType>().ok(),
        ),
        actor_id: read.field("actor_id", parameters.actor_id, CODE, code),
        event_type: read.field("event_type", parameters.event_type, CODE, code),
        created_from: read.time("created_from", parameters.created_from),
        created_before: read.time("created_before", parameters.created_before),
    };
    if form != Form::Pages {
        read.not_in_an_export(parameters.limit.as_deref(), parameters.cursor.as_deref());
    }
    let after = read
        .cursor(parameters.cursor, query::parse_cursor)
        .map(|(created_at, id)| Position { created_at, id });
    let limit = read.limit(parameters.limit);
    read.finish()?;
    Ok(Asked {
        filter,
        after,
        limit,
    })
}

const CODE: &str = "1 to 64 visible ASCII characters";

/// As in the columns. What these cannot hold would be compared in another collation, without the index.
fn code(text: &str) -> Option<String> {
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    (visible && (1..=64).contains(&text.len())).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::export::Format;
    use super::*;

    fn wrong(query: &str, form: Form) -> Vec<String> {
        let Err(ApiError::InvalidFields(errors)) = parse(query, form) else {
            panic!("expected invalid fields: {query}");
        };
        errors.into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn every_wrong_parameter_is_named() {
        let query = "return_id=x&order_id=1.5&actor_type=robot&actor_id=&event_type=%C3%A4&created_from=1\
                     &created_before=2026-11-27&cursor=7&limit=0";
        let names: Vec<&str> = query
            .split('&')
            .filter_map(|pair| Some(pair.split_once('=')?.0))
            .collect();
        assert_eq!(wrong(query, Form::Pages), names);
    }

    #[test]
    fn an_export_has_neither_pages_nor_a_place_to_go_on() {
        let export = Form::Export(Format::Csv);
        assert_eq!(wrong("limit=5&cursor=1-2", export), ["limit", "cursor"]);
        assert!(parse("actor_id=42", export).is_ok());
    }

    #[test]
    fn filters_are_read() {
        let query = "return_id=3&order_id=4&actor_type=customer&actor_id=42&event_type=return.initiated\
                     &created_from=2026-11-27T00:00:00Z&created_before=2026-11-28T00:00:00Z&cursor=1000-7&limit=3";
        let Asked {
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
        assert_eq!(filter.event_type.as_deref(), Some("return.initiated"));
        assert!(filter.created_from < filter.created_before);
        assert_eq!((after.map(|after| after.id), limit), (Some(7), 3));
    }
}
