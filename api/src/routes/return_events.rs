//! `GET /returns/{id}/events`: the audit trail of one return in the order of its chain, for auditors and admins.

use serde::Deserialize;
use shared::auth::{Operation, Request};
use shared::domain::ids::ReturnId;
use utoipa::IntoParams;
use warp::http::HeaderMap;
use warp::reply::Response;

use super::accept::Form;
use super::export::{self, Scope};
use super::list_events::EventView;
use super::one_return;
use super::query::{self, Page, Reader};
use crate::auth::Credential;
use crate::error::ApiError;
use crate::store::{self, EventRow};
use crate::trail::Trail;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    /// Events on a page. Not with an export.
    #[param(value_type = Option<u32>, nullable = false, minimum = 1, maximum = 200, default = 50)]
    limit: Option<String>,
    /// `next_cursor` of the page before. Not with an export.
    #[param(value_type = Option<i32>, nullable = false)]
    cursor: Option<String>,
}

pub(super) async fn handle(
    id: String,
    credential: Result<Credential, ApiError>,
    headers: HeaderMap,
    query: String,
    trail: Trail,
) -> Result<Response, ApiError> {
    let credential = credential?;
    let id = one_return::parse_id(&id);
    // Nothing else of the row: what was tampered with must be shown too.
    let owner = trail
        .lane
        .query(move |conn| Box::pin(store::owner_of(conn, id)))
        .await?;
    let request = Request::about(Operation::EventsRead, id, owner);
    credential.caller_for(&request)?;
    // A return whose events are gone is not the same as none, least of all to an auditor.
    owner.ok_or(ApiError::NotFound)?;
    let form = Form::accepted(&headers)?;
    let (after_seq, limit) = parse(&query, form)?;
    match form {
        Form::Pages => page(&trail, id, after_seq, limit, &query).await,
        Form::Export(format) => {
            let reader = export::Reader {
                credential,
                request,
            };
            export::begin(trail, reader, Scope::Chain(id), format).await
        }
    }
    .map(Form::vary)
}

async fn page(
    trail: &Trail,
    id: ReturnId,
    after_seq: i32,
    limit: u32,
    query: &str,
) -> Result<Response, ApiError> {
    // One more than asked for tells whether there is a next page.
    let rows = trail
        .lane
        .query(move |conn| Box::pin(store::list_events_of(conn, id, after_seq, limit + 1)))
        .await?;
    let seq = |row: &EventRow| row.seq.to_string();
    Ok(Page::<EventView>::of(rows, limit, seq).answer(query))
}

/// After which `seq`, and how many.
fn parse(query: &str, form: Form) -> Result<(i32, u32), ApiError> {
    let parameters: Parameters = query::parameters(query)?;
    let mut read = Reader::default();
    if form != Form::Pages {
        read.not_in_an_export(parameters.limit.as_deref(), parameters.cursor.as_deref());
    }
    let after_seq = read.cursor(parameters.cursor, |text| {
        i32::try_from(query::number(text)?).ok()
    });
    let limit = read.limit(parameters.limit);
    read.finish()?;
    Ok((after_seq.unwrap_or(0), limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_begin_at_the_first_event_and_go_on_after_the_cursor() {
        assert_eq!(parse("", Form::Pages), Ok((0, 50)));
        assert_eq!(parse("cursor=7&limit=2", Form::Pages), Ok((7, 2)));
        assert!(parse("cursor=1-7", Form::Pages).is_err());
    }
}
