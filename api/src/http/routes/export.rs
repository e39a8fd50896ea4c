//! An export: all events that a filter allows, oldest first, streamed in chunks.
//!
//! Must stay true: only one chunk is in memory, and between chunks the export holds no connection to MySQL. A cut export
//! never ends like a complete one: the connection is closed, and NDJSON lacks its manifest. The end is fixed at the start,
//! by the database's clock. An event gets its time shortly before its commit: an event in flight at that moment may be
//! missing, and is in the next export of the same period.

mod csv;
mod ndjson;
mod sending;

use bytes::Bytes;
use shared::runtime::db::DbError;
use shared::runtime::http_server::Connection;
use time::OffsetDateTime;
use warp::Reply;
use warp::http::{HeaderMap, HeaderValue, header};
use warp::reply::Response;

use self::ndjson::Lines;
use self::sending::Sending;
use crate::audit::{AuditReads, CHUNK, Place, Scope};
use crate::auth::Grant;
use crate::error::ApiError;
use crate::http::accept::Format;
use crate::store::EventRow;

/// Begins an export. The first chunk is read before the response begins, so that an error can still have a status.
///
/// # Errors
/// [`ApiError::TooManyExports`], or a database error.
pub(super) async fn begin(
    audit: &AuditReads,
    connection: &Connection,
    grant: Grant,
    mut scope: Scope,
    format: Format,
) -> Result<Response, ApiError> {
    let permit = audit.begin_export(grant.holder())?;
    let now = audit.now().await?;
    let mut before = now;
    if let Scope::Filtered(filter) = &mut scope {
        before = filter.created_before.map_or(now, |before| before.min(now));
        filter.created_before = Some(before);
    }
    let first = audit.chunk(&scope, None).await?;
    let sending = Sending {
        limits: audit.export_limits.clone(),
        grant,
        connection: connection.clone(),
        _permit: permit,
    };
    let body = sending.start(Export {
        audit: audit.clone(),
        scope,
        writer: Writer::new(format, before),
        rest: Rest::Read(first),
    });
    let mut response = warp::reply::stream(body).into_response();
    describe(response.headers_mut(), format);
    Ok(response)
}

fn describe(headers: &mut HeaderMap, format: Format) {
    for (name, value) in [
        (header::CONTENT_TYPE, format.content_type()),
        (header::CONTENT_DISPOSITION, format.disposition()),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// The events of an export, as they are read and written.
#[derive(Debug)]
struct Export {
    audit: AuditReads,
    scope: Scope,
    writer: Writer,
    rest: Rest,
}

/// The rest of an export.
#[derive(Debug)]
enum Rest {
    Read(Vec<EventRow>),
    After(Place),
    Nothing,
}

impl Export {
    /// The next chunk as bytes; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, DbError> {
        let rows = match std::mem::replace(&mut self.rest, Rest::Nothing) {
            Rest::Read(rows) => rows,
            Rest::After(place) => self.audit.chunk(&self.scope, Some(place)).await?,
            Rest::Nothing => return Ok(None),
        };
        let full = u32::try_from(rows.len()) == Ok(CHUNK);
        self.rest = match rows.last() {
            Some(last) if full => Rest::After(Place {
                position: last.position,
                seq: last.seq,
            }),
            _ => Rest::Nothing,
        };
        Ok(Some(self.writer.chunk(rows, !full)))
    }
}

/// Rows to bytes.
#[derive(Debug)]
enum Writer {
    Ndjson(Lines),
    Csv { begun: bool },
}

impl Writer {
    fn new(format: Format, before: OffsetDateTime) -> Self {
        match format {
            Format::Ndjson => Self::Ndjson(Lines::new(before)),
            Format::Csv => Self::Csv { begun: false },
        }
    }

    fn chunk(&mut self, rows: Vec<EventRow>, last: bool) -> Bytes {
        match self {
            Self::Ndjson(lines) => lines.chunk(rows, last),
            Self::Csv { begun } => csv::chunk(&rows, std::mem::replace(begun, true)),
        }
    }
}
