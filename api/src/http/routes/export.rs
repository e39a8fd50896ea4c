//! An export: all events that a filter allows, oldest first, streamed in chunks.
//!
//! Must stay true: only one chunk is in memory, and between chunks the export holds no connection to MySQL, so a client
//! may read as slowly as it likes. An interrupted export never ends like a complete one: the connection is closed, and
//! NDJSON lacks its manifest. The end is fixed at the start, by the database's clock. An event gets its time shortly
//! before its commit: an event in flight at that moment may be missing, and is in the next export of the same period.

mod csv;
mod ndjson;

use bytes::Bytes;
use futures_util::stream;
use shared::runtime::tasks::chain;
use time::OffsetDateTime;
use warp::Reply;
use warp::http::{HeaderMap, HeaderValue, header};
use warp::reply::Response;

use self::ndjson::Lines;
use crate::audit::{AuditReads, CHUNK, Place, Scope};
use crate::auth::Grant;
use crate::error::ApiError;
use crate::http::accept::Format;
use crate::quota::QuotaPermit;
use crate::store::EventRow;

/// Begins an export. The first chunk is read before the response begins, so that an error can still have a status.
///
/// # Errors
/// [`ApiError::TooManyExports`], or a database error.
pub(super) async fn begin(
    audit: &AuditReads,
    grant: Grant,
    mut scope: Scope,
    format: Format,
) -> Result<Response, ApiError> {
    let permit = audit.begin_export(grant.user())?;
    let now = audit.now().await?;
    let mut before = now;
    if let Scope::Filtered(filter) = &mut scope {
        before = filter.created_before.map_or(now, |before| before.min(now));
        filter.created_before = Some(before);
    }
    let first = audit.chunk(&scope, None).await?;
    let export = Export {
        audit: audit.clone(),
        grant,
        scope,
        writer: Writer::new(format, before),
        rest: Rest::Read(first),
        _permit: permit,
    };
    let chunks = stream::try_unfold(export, Export::next);
    let mut response = warp::reply::stream(chunks).into_response();
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

/// An export in progress.
#[derive(Debug)]
struct Export {
    audit: AuditReads,
    /// Checked again before each chunk, because the token may expire before the export ends.
    grant: Grant,
    scope: Scope,
    writer: Writer,
    rest: Rest,
    _permit: QuotaPermit,
}

/// The rest of an export.
#[derive(Debug)]
enum Rest {
    Read(Vec<EventRow>),
    After(Place),
    Nothing,
}

/// Ends the body and the connection: the client must not take an incomplete export for a complete one.
#[derive(Debug, thiserror::Error)]
#[error("the export was interrupted")]
struct Interrupted;

impl Export {
    /// The next chunk as bytes. Called when the client has received the previous one.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Interrupted> {
        let rows = match std::mem::replace(&mut self.rest, Rest::Nothing) {
            Rest::Read(rows) => rows,
            Rest::After(place) => {
                if self.grant.still_holds() != Some(true) {
                    return Err(Interrupted);
                }
                let rows = self.audit.chunk(&self.scope, Some(place)).await;
                rows.map_err(|error| {
                    tracing::warn!(error = chain(&error), "an export was interrupted");
                    Interrupted
                })?
            }
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
        let bytes = self.writer.chunk(rows, !full);
        Ok(Some((bytes, self)))
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
