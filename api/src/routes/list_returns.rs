//! `GET /returns`: keyset pages of all returns, newest first, for admins.

use serde::{Deserialize, Serialize};
use shared::auth::{Operation, Request};
use shared::ids::{CustomerId, OrderId, ReturnId};
use shared::status::Status;
use sqlx::mysql::MySqlPool;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use warp::Reply;
use warp::reply::Response;

use super::show_return::ReturnView;
use crate::auth::Credential;
use crate::error::{ApiError, FieldError};
use crate::store::{self, ReturnFilter, ReturnRow};

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 200;

#[derive(Debug, Serialize)]
struct Page {
    items: Vec<ReturnView>,
    /// Pass as `cursor` for the next page; null at the end.
    next_cursor: Option<String>,
}

/// The parameters as text; each is read on its own, so that the answer names every wrong one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    status: Option<String>,
    order_id: Option<String>,
    customer_id: Option<String>,
    created_from: Option<String>,
    created_before: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

pub(super) async fn handle(
    credential: Result<Credential, ApiError>,
    query: String,
    pool: MySqlPool,
) -> Result<Response, ApiError> {
    credential?.caller_for(&Request::of(Operation::ReturnsList))?;
    let (filter, limit) = parse(&query)?;
    let mut rows = tokio::spawn(async move {
        // One more than asked for tells whether there is a next page.
        store::list_returns(&pool, &filter, limit + 1).await
    })
    .await
    .map_err(|_| ApiError::Internal)?
    .map_err(|error| ApiError::from_database(&error))?;
    let size = usize::try_from(limit).expect("at most 200");
    let more = rows.len() > size;
    rows.truncate(size);
    let page = Page {
        next_cursor: rows.last().filter(|_| more).map(cursor),
        items: rows.into_iter().map(ReturnView::from).collect(),
    };
    Ok(warp::reply::json(&page).into_response())
}

fn parse(query: &str) -> Result<(ReturnFilter, u32), ApiError> {
    let parameters: Parameters = serde_urlencoded::from_str(query)
        .map_err(|error| ApiError::BadRequest(format!("query: {error}")))?;
    let mut read = Reader::default();
    let filter = ReturnFilter {
        status: read.field("status", parameters.status, "a status", Status::parse),
        order_id: read.field("order_id", parameters.order_id, "a number", |text| {
            text.parse().ok().map(OrderId)
        }),
        customer_id: read.field("customer_id", parameters.customer_id, "a number", |text| {
            text.parse().ok().map(CustomerId)
        }),
        created_from: read.field("created_from", parameters.created_from, TIME, parse_time),
        created_before: read.field(
            "created_before",
            parameters.created_before,
            TIME,
            parse_time,
        ),
        after: read.field("cursor", parameters.cursor, "a next_cursor", parse_cursor),
    };
    let limit = read.field("limit", parameters.limit, "1 to 200", |text| {
        text.parse().ok().filter(|n| (1..=LIMIT_MAX).contains(n))
    });
    if read.errors.is_empty() {
        Ok((filter, limit.unwrap_or(LIMIT_DEFAULT)))
    } else {
        Err(ApiError::InvalidFields(read.errors))
    }
}

const TIME: &str = "an RFC 3339 time";

/// Reads parameters and keeps what is wrong with them.
#[derive(Default)]
struct Reader {
    errors: Vec<FieldError>,
}

impl Reader {
    fn field<T>(
        &mut self,
        name: &str,
        text: Option<String>,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = text?;
        let value = read(&text);
        if value.is_none() {
            self.errors
                .push(FieldError::new(name, format!("must be {expected}")));
        }
        value
    }
}

/// A cursor is the position of a page's last row: microseconds since 1970 and the id.
fn cursor(row: &ReturnRow) -> String {
    let micros = row.created_at.unix_timestamp_nanos() / 1_000;
    format!("{micros}-{}", row.id)
}

fn parse_cursor(text: &str) -> Option<(OffsetDateTime, ReturnId)> {
    let (micros, id) = text.split_once('-')?;
    let nanos = micros.parse::<i128>().ok()?.checked_mul(1_000)?;
    let created_at = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
    Some((created_at, ReturnId(id.parse().ok()?)))
}

fn parse_time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_parameter_is_named() {
        let Err(ApiError::InvalidFields(errors)) =
            parse("status=lost&order_id=x&limit=201&cursor=1&created_from=yesterday")
        else {
            panic!("expected invalid fields");
        };
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(
            fields,
            ["status", "order_id", "created_from", "cursor", "limit"]
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

    #[test]
    fn a_cursor_is_read_back() {
        let (filter, limit) = parse("cursor=1763862900123456-7&limit=200").expect("good");
        let (created_at, id) = filter.after.expect("a cursor");
        assert_eq!(created_at.unix_timestamp_nanos(), 1_763_862_900_123_456_000);
        assert_eq!((id, limit), (ReturnId(7), 200));
    }
}
