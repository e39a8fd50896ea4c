//! `GET /returns/{id}/events`: the audit trail of one return in the order of its chain, for auditors and admins.

use serde::Deserialize;
use shared::auth::{Operation, Request};
use shared::domain::ids::ReturnId;
use utoipa::IntoParams;
use warp::reply::Response;

use super::export;
use crate::audit::{AuditReads, Scope};
use crate::error::ApiError;
use crate::http::accept::Form;
use crate::http::call::{Call, parse_id};
use crate::http::query::{self, Page, ParameterReader};
use crate::http::views::EventView;
use crate::store::EventRow;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Parameters {
    /// Events on a page. Not with an export.
    #[param(value_type = Option<u32>, nullable = false, minimum = 1, maximum = 200, default = 50)]
    limit: Option<String>,
    /// `next_cursor` of the previous page. To continue an export that was cut: the `seq` of its last whole line.
    #[param(value_type = Option<i32>, nullable = false)]
    cursor: Option<String>,
}

pub(super) async fn handle(call: Call, id: &str) -> Result<Response, ApiError> {
    let credential = call.authenticate()?;
    let (audit, id) = (&call.state.audit, parse_id(id));
    let owner = audit.owner_of(id).await?;
    let request = Request::about(Operation::EventsRead, id, owner);
    credential.caller_for(&request)?;
    // A return without events is not the same as no return, least of all to an auditor.
    owner.ok_or(ApiError::NotFound)?;
    let form = Form::accepted(&call.headers)?;
    let (after_seq, limit) = parse(&call.query, form)?;
    let scope = Scope::Chain { id, after_seq };
    audit.check_whole(&scope).await?;
    match form {
        Form::Pages => page(audit, id, after_seq, limit, &call.query).await,
        Form::Export(format) => {
            let grant = credential.grant(request);
            export::begin(audit, &call.connection, grant, scope, format).await
        }
    }
    .map(Form::vary)
}

async fn page(
    audit: &AuditReads,
    id: ReturnId,
    after_seq: i32,
    limit: u32,
    query: &str,
) -> Result<Response, ApiError> {
    // One more than the limit shows whether there is a next page.
    let rows = audit.list_of(id, after_seq, limit + 1).await?;
    let seq = |row: &EventRow| row.seq.to_string();
    Ok(Page::<EventView>::of(rows, limit, seq).response(query))
}

/// The `seq` after which the page or the export begins, and the limit.
fn parse(query: &str, form: Form) -> Result<(i32, u32), ApiError> {
    let parameters: Parameters = query::parameters(query)?;
    let mut read = ParameterReader::default();
    if form != Form::Pages {
        read.not_in_an_export("limit", parameters.limit.as_deref());
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
    fn pages_begin_at_the_first_event_and_continue_after_the_cursor() {
        assert_eq!(parse("", Form::Pages), Ok((0, 50)));
        assert_eq!(parse("cursor=7&limit=2", Form::Pages), Ok((7, 2)));
        assert!(parse("cursor=1-7", Form::Pages).is_err());
    }
}
