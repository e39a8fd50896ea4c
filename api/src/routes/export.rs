//! An export: all events that a filter names, oldest first, streamed chunk by chunk.
//!
//! Must stay true: one chunk is in memory, and between chunks nothing of the database is held, so a client may read as
//! slowly as it likes; what breaks off is never ended as if it were whole: the connection is cut, and NDJSON lacks its
//! manifest. The end is fixed at the start by the database's clock. An event is dated a moment before it is committed:
//! one that was on its way then may be missing, and is in the next export of the same time.

mod csv;
mod ndjson;

use bytes::Bytes;
use futures_util::stream;
use shared::auth::Request;
use shared::domain::ids::ReturnId;
use time::OffsetDateTime;
use warp::Reply;
use warp::http::{HeaderMap, HeaderValue, header};
use warp::reply::Response;

use self::ndjson::Lines;
use crate::auth::Credential;
use crate::error::ApiError;
use crate::slots::Slot;
use crate::store::{self, EventFilter, EventRow, Position, Walk};
use crate::trail::Trail;

/// The form of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// For proof: each line is a page's item, the last one counts and hashes those before.
    Ndjson,
    /// For reading in a spreadsheet.
    Csv,
}

impl Format {
    fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }

    fn disposition(self) -> &'static str {
        match self {
            Self::Ndjson => r#"attachment; filename="return-events.ndjson""#,
            Self::Csv => r#"attachment; filename="return-events.csv""#,
        }
    }
}

/// Events that are read at once: some 400 KB of ours, a few milliseconds.
const CHUNK: u32 = 500;

/// Whose events.
#[derive(Debug, Clone)]
pub(super) enum Scope {
    Filtered(EventFilter),
    /// One return's, in the order of its chain.
    Chain(ReturnId),
}

/// Who exports, and what allowed it: asked again before each chunk, because a token may end before an export does.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) credential: Credential,
    pub(super) request: Request,
}

/// Begins an export. The first chunk is read before the answer, so that what can fail at once has a status.
///
/// # Errors
/// [`ApiError::TooManyExports`], or a database error.
pub(super) async fn begin(
    trail: Trail,
    reader: Reader,
    mut scope: Scope,
    format: Format,
) -> Result<Response, ApiError> {
    let slot = trail.begin_export(reader.credential.user())?;
    let now = trail.lane.query(|conn| Box::pin(store::now(conn))).await?;
    let mut before = now;
    if let Scope::Filtered(filter) = &mut scope {
        before = filter.created_before.map_or(now, |before| before.min(now));
        filter.created_before = Some(before);
    }
    let first = read(&trail, &scope, None).await?;
    let export = Export {
        trail,
        reader,
        scope,
        writer: Writer::new(format, before),
        rest: Rest::Read(first),
        _slot: slot,
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

/// An export under way.
#[derive(Debug)]
struct Export {
    trail: Trail,
    reader: Reader,
    scope: Scope,
    writer: Writer,
    rest: Rest,
    _slot: Slot,
}

/// Where an event stands, among all and in its chain.
#[derive(Debug, Clone, Copy)]
struct Place {
    position: Position,
    seq: i32,
}

/// What was not sent yet.
#[derive(Debug)]
enum Rest {
    Read(Vec<EventRow>),
    After(Place),
    Nothing,
}

/// Ends the body, and with it the connection: the client must not take what it has for everything.
#[derive(Debug, thiserror::Error)]
#[error("the export broke off")]
struct BrokenOff;

impl Export {
    /// The next chunk as bytes. Called only once the client took the one before.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, BrokenOff> {
        let rows = match std::mem::replace(&mut self.rest, Rest::Nothing) {
            Rest::Read(rows) => rows,
            Rest::After(place) => {
                let Reader {
                    credential,
                    request,
                } = &self.reader;
                if credential.still_allows(request) != Some(true) {
                    return Err(BrokenOff);
                }
                let rows = read(&self.trail, &self.scope, Some(place)).await;
                rows.map_err(|_| BrokenOff)?
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

/// The next chunk.
async fn read(
    trail: &Trail,
    scope: &Scope,
    after: Option<Place>,
) -> Result<Vec<EventRow>, ApiError> {
    let scope = scope.clone();
    let reading = trail.lane.query(move |conn| match scope {
        Scope::Filtered(filter) => {
            let walk = Walk::OldestFirst(after.map(|place| place.position));
            Box::pin(async move { store::list_events(conn, &filter, walk, CHUNK).await })
        }
        Scope::Chain(id) => {
            let after = after.map_or(0, |place| place.seq);
            Box::pin(store::list_events_of(conn, id, after, CHUNK))
        }
    });
    Ok(reading.await?)
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
