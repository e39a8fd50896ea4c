//! The form of a response, by `Accept` (RFC 9110, 12.5.1).

use warp::http::{HeaderMap, HeaderValue, header};
use warp::reply::Response;

use crate::error::ApiError;

/// The form of a list of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Pages, as JSON.
    Pages,
    /// All events in one response.
    Export(Format),
}

/// The media type of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// For verification: each line is an event as in a page; the last line has their number and hash.
    Ndjson,
    /// For reading in a spreadsheet.
    Csv,
}

impl Format {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }

    pub(super) fn disposition(self) -> &'static str {
        match self {
            Self::Ndjson => r#"attachment; filename="return-events.ndjson""#,
            Self::Csv => r#"attachment; filename="return-events.csv""#,
        }
    }
}

impl Form {
    /// Of two forms with equal weight the earlier one is used.
    const ALL: [Self; 3] = [
        Self::Pages,
        Self::Export(Format::Ndjson),
        Self::Export(Format::Csv),
    ];

    fn media_type(self) -> (&'static str, &'static str) {
        match self {
            Self::Pages => ("application", "json"),
            Self::Export(Format::Ndjson) => ("application", "x-ndjson"),
            Self::Export(Format::Csv) => ("text", "csv"),
        }
    }

    /// The form with the highest weight; pages without `Accept`.
    ///
    /// # Errors
    /// [`ApiError::NotAcceptable`] if no form is accepted.
    pub(super) fn accepted(headers: &HeaderMap) -> Result<Self, ApiError> {
        let values = headers.get_all(header::ACCEPT).iter();
        // A value that is not ASCII names no form.
        let texts: Vec<&str> = values.map(|value| value.to_str().unwrap_or("?")).collect();
        let ranges: Vec<Range> = texts
            .iter()
            .flat_map(|text| text.split(','))
            .filter(|text| !text.trim().is_empty())
            .filter_map(Range::parse)
            .collect();
        if texts.iter().all(|text| text.trim().is_empty()) {
            return Ok(Self::Pages);
        }
        let weighted = Self::ALL.map(|form| (form, quality(&ranges, form.media_type())));
        // `max_by_key` returns the last maximum; the first is wanted.
        weighted
            .into_iter()
            .rev()
            .max_by_key(|(_, quality)| *quality)
            .filter(|(_, quality)| *quality > 0)
            .map(|(form, _)| form)
            .ok_or(ApiError::NotAcceptable)
    }

    /// For caches: the response depends on `Accept`.
    pub(super) fn vary(mut response: Response) -> Response {
        let accept = HeaderValue::from_static("accept");
        response.headers_mut().insert(header::VARY, accept);
        response
    }
}

/// One entry of the list. Parameters other than the weight are ignored, because no form has variants.
#[derive(Debug, Clone, Copy)]
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    /// In thousandths, the finest weight that can be written.
    weight: u16,
}

impl<'a> Range<'a> {
    /// `None` if it cannot be parsed: then it accepts nothing.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        Some(Self {
            kind,
            subtype,
            weight: weight.map_or(Some(1000), thousandths)?,
        })
    }

    /// How specific the match is; `None` without a match.
    fn matches(&self, (kind, subtype): (&str, &str)) -> Option<u8> {
        match (self.kind, self.subtype) {
            ("*", "*") => Some(0),
            (named, "*") => named.eq_ignore_ascii_case(kind).then_some(1),
            (named, sub) => {
                (named.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subtype)).then_some(2)
            }
        }
    }
}

/// The weight of the most specific range that matches; 0 if none does.
fn quality(ranges: &[Range], media_type: (&str, &str)) -> u16 {
    ranges
        .iter()
        .filter_map(|range| Some((range.matches(media_type)?, range.weight)))
        .max()
        .map_or(0, |(_, weight)| weight)
}

/// `0`, `1`, or either with up to three decimals, and no more than 1.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = decimals.len() <= 3 && decimals.bytes().all(|byte| byte.is_ascii_digit());
    let whole: u16 = match whole {
        "0" => 0,
        "1" => 1000,
        _ => return None,
    };
    let decimals: u16 = format!("{decimals:0<3}").parse().ok().filter(|_| digits)?;
    Some(whole + decimals).filter(|weight| *weight <= 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(values: &[&str]) -> Result<Form, ApiError> {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_str(value).expect("a header");
            headers.append(header::ACCEPT, value);
        }
        Form::accepted(&headers)
    }

    #[test]
    fn the_form_with_the_highest_weight_is_used() {
        const NDJSON: Form = Form::Export(Format::Ndjson);
        const CSV: Form = Form::Export(Format::Csv);
        for (values, form) in [
            (&[][..], Form::Pages),
            (&[""], Form::Pages),
            (&["*/*"], Form::Pages),
            (&["application/*"], Form::Pages),
            (&["application/json; charset=utf-8"], Form::Pages),
            (&["application/x-ndjson"], NDJSON),
            (&["Application/X-NDJSON"], NDJSON),
            (&["text/csv"], CSV),
            (&["text/*"], CSV),
            (&["image/png", "text/csv"], CSV),
            (&["text/html, text/csv;q=0.9, */*;q=0.8"], CSV),
            (&["text/csv;q=0.5, application/x-ndjson;q=0.501"], NDJSON),
            (&["text/csv;q=1, application/x-ndjson;q=1.000"], NDJSON),
            // The most specific range decides, not the one with the highest weight.
            (&["*/*, application/json;q=0"], NDJSON),
            (&["application/*;q=0.1, text/*;q=0.2, */*"], CSV),
            (&["text/csv; header=present ;Q=0.3 , */*;q=0.2"], CSV),
        ] {
            assert_eq!(accepted(values), Ok(form), "{values:?}");
        }
    }

    #[test]
    fn a_request_that_accepts_no_form_is_not_acceptable() {
        for values in [
            &["text/html"][..],
            &["application/json;q=0"],
            &["*/*;q=0.000"],
            &["csv"],
            &["text/csv;q=2"],
            &["text/csv;q=0.1234"],
            &["text/csv;q=1.001"],
            &["text/csv;q=-1"],
            &["text/csv;q="],
            &["*/csv"],
        ] {
            assert_eq!(accepted(values), Err(ApiError::NotAcceptable), "{values:?}");
        }
    }
}
