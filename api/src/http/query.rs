//! Parameters, cursors and pages of lists.

mod time_page;

use serde::Serialize;
use serde::de::DeserializeOwned;
use time::format_description::well_known::Rfc3339;
use time::macros::datetime;
use time::{OffsetDateTime, UtcOffset};
use utoipa::ToSchema;
use warp::Reply;
use warp::http::{HeaderValue, header};
use warp::reply::Response;

pub(super) use self::time_page::TimePageParameters;
use crate::error::{ApiError, FieldError};

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 200;

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    items: Vec<T>,
    /// Pass it as `cursor` for the next page; null at the end.
    #[schema(required)]
    next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// The first `limit` of `rows`. If there is one more, there is a next page.
    pub(super) fn of<R: Into<T>>(
        mut rows: Vec<R>,
        limit: u32,
        cursor: impl FnOnce(&R) -> String,
    ) -> Self {
        let size = usize::try_from(limit).expect("at most 200");
        let more = rows.len() > size;
        rows.truncate(size);
        Self {
            next_cursor: rows.last().filter(|_| more).map(cursor),
            items: rows.into_iter().map(Into::into).collect(),
        }
    }

    pub(super) fn map<U>(self, show: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(show).collect(),
            next_cursor: self.next_cursor,
        }
    }
}

impl<T: Serialize> Page<T> {
    /// The response to `query`, with a link to the next page (RFC 8288).
    pub(super) fn response(&self, query: &str) -> Response {
        let mut response = warp::reply::json(self).into_response();
        if let Some(cursor) = &self.next_cursor {
            response
                .headers_mut()
                .insert(header::LINK, next_link(query, cursor));
        }
        response
    }
}

/// The same query with another cursor. Relative to the path, which a proxy may have prefixed.
fn next_link(query: &str, cursor: &str) -> HeaderValue {
    let mut pairs: Vec<(String, String)> =
        serde_urlencoded::from_str(query).expect("it was parsed before");
    pairs.retain(|(name, _)| name != "cursor");
    pairs.push(("cursor".to_owned(), cursor.to_owned()));
    let query = serde_urlencoded::to_string(pairs).expect("pairs of text");
    HeaderValue::from_str(&format!("<?{query}>; rel=\"next\""))
        .expect("an encoded query is visible ASCII")
}

/// The parameters of a query, each as text. They are parsed one by one, so that the response names every wrong one.
pub(super) fn parameters<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    serde_urlencoded::from_str(query)
        .map_err(|error| ApiError::BadRequest(format!("query: {error}")))
}

/// Parses parameters, and collects the errors.
#[derive(Debug, Default)]
pub(super) struct ParameterReader {
    errors: Vec<FieldError>,
}

impl ParameterReader {
    pub(super) fn field<T>(
        &mut self,
        name: &str,
        text: Option<String>,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = text?;
        let value = read(&text);
        if value.is_none() {
            self.wrong(name, format!("must be {expected}"));
        }
        value
    }

    pub(super) fn number<T>(
        &mut self,
        name: &str,
        text: Option<String>,
        id: fn(i64) -> T,
    ) -> Option<T> {
        self.field(name, text, "a number", |text| number(text).map(id))
    }

    pub(super) fn time(&mut self, name: &str, text: Option<String>) -> Option<OffsetDateTime> {
        self.field(name, text, "an RFC 3339 time", parse_time)
    }

    pub(super) fn cursor<T>(
        &mut self,
        text: Option<String>,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.field("cursor", text, "a next_cursor", read)
    }

    pub(super) fn limit(&mut self, text: Option<String>) -> u32 {
        self.field("limit", text, "1 to 200", |text| {
            let limit = number(text).and_then(|n| u32::try_from(n).ok());
            limit.filter(|n| (1..=LIMIT_MAX).contains(n))
        })
        .unwrap_or(LIMIT_DEFAULT)
    }

    /// An export has all events. A client that sends a limit expects fewer, and would not notice.
    pub(super) fn not_in_an_export(&mut self, name: &str, given: Option<&str>) {
        if given.is_some() {
            self.wrong(name, "must be left out of an export");
        }
    }

    fn wrong(&mut self, name: &str, message: impl Into<String>) {
        self.errors.push(FieldError::in_query(name, message));
    }

    /// # Errors
    /// All errors.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(ApiError::InvalidFields(self.errors))
        }
    }
}

/// A row's place in the order of time and id: microseconds since 1970, and the id.
pub(super) fn cursor(created_at: OffsetDateTime, id: i64) -> String {
    let micros = created_at.unix_timestamp_nanos() / 1_000;
    format!("{micros}-{id}")
}

fn parse_cursor(text: &str) -> Option<(OffsetDateTime, i64)> {
    let (micros, id) = text.split_once('-')?;
    let micros = digits(micros, 17)?;
    let created_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000).ok()?;
    Some((created_at, digits(id, 18)?))
}

/// Text as a column of codes or names holds it: 1 to 64 ASCII characters from `first` to `~`. Other text would be compared in
/// another collation, without the index.
pub(super) fn ascii(text: &str, first: u8) -> Option<String> {
    let printable = text.bytes().all(|byte| (first..=b'~').contains(&byte));
    (printable && (1..=64).contains(&text.len())).then(|| text.to_owned())
}

/// Without `+`, as in JSON.
pub(super) fn number(text: &str) -> Option<i64> {
    text.parse().ok().filter(|_| !text.starts_with('+'))
}

/// A number without a sign, as in the contract. 17 digits of microseconds last until the year 5138; an id has at most 18.
fn digits(text: &str, most: usize) -> Option<i64> {
    let plain = text.len() <= most && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

/// The range of `DATETIME`. For a time outside, the driver panics or MySQL refuses the statement.
const FIRST_TIME: OffsetDateTime = datetime!(1000-01-01 00:00 UTC);
const LAST_TIME: OffsetDateTime = datetime!(9999-12-31 23:59:59.999999 UTC);

/// In UTC. A time outside the range becomes its nearest end. No row has a time there, so the result is the same.
fn parse_time(text: &str) -> Option<OffsetDateTime> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let nearest = time.clamp(FIRST_TIME, LAST_TIME);
    Some(nearest.to_offset(UtcOffset::UTC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_parsed_again() {
        let (created_at, id) = parse_cursor("1763862900123456-7").expect("good");
        assert_eq!(created_at.unix_timestamp_nanos(), 1_763_862_900_123_456_000);
        assert_eq!(
            (cursor(created_at, id).as_str(), id),
            ("1763862900123456-7", 7)
        );
        for bad in [
            "",
            "7",
            "a-7",
            "7-a",
            "1-2-3",
            "-1-7",
            "+1-7",
            "1-+7",
            "999999999999999999-7",
            "1-9999999999999999999",
        ] {
            assert_eq!(parse_cursor(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_link_keeps_the_filters_and_encodes_them() {
        let link = next_link("cursor=1-2&actor_id=a%26b%3E%22&limit=3", "4-5");
        assert_eq!(
            link,
            r#"<?actor_id=a%26b%3E%22&limit=3&cursor=4-5>; rel="next""#
        );
        assert_eq!(next_link("", "4-5"), r#"<?cursor=4-5>; rel="next""#);
    }

    #[test]
    fn the_row_above_the_limit_is_not_shown_but_means_a_next_page() {
        let page: Page<i64> = Page::of(vec![9_i64, 8, 7], 2, i64::to_string);
        assert_eq!(
            (page.items, page.next_cursor.as_deref()),
            (vec![9, 8], Some("8"))
        );
        let last: Page<i64> = Page::of(vec![9_i64, 8], 2, i64::to_string);
        assert_eq!((last.items.len(), last.next_cursor), (2, None));
    }

    #[test]
    fn a_time_outside_the_range_becomes_its_nearest_end() {
        for (text, time) in [
            (
                "2026-11-27T04:05:06.123456+01:00",
                datetime!(2026-11-27 03:05:06.123456 UTC),
            ),
            ("0000-01-01T00:00:00+23:59", FIRST_TIME),
            ("0999-12-31T23:59:59Z", FIRST_TIME),
            ("1000-01-01T00:00:00+01:00", FIRST_TIME),
            ("9999-12-31T23:59:59-23:59", LAST_TIME),
        ] {
            assert_eq!(parse_time(text), Some(time), "{text}");
        }
        assert_eq!(parse_time("yesterday"), None);
    }
}
