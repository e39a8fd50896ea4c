//! Which pages in browsers may use the api: those of CORS_ALLOWED_ORIGINS.
//!
//! Never `*` and never credentials: callers bring a token in `Authorization`, and a page of another origin has none. An
//! origin that is not listed gets no CORS header at all, and its browser keeps the answer from the page.

use warp::Reply;
use warp::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use warp::reply::Response;

#[derive(Debug)]
pub(crate) struct Cors {
    origins: Vec<HeaderValue>,
}

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST");
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, if-match, if-none-match, last-event-id, x-request-id, traceparent, tracestate",
);
const ANSWER_HEADERS: HeaderValue = HeaderValue::from_static(
    "etag, location, link, content-disposition, retry-after, ratelimit, ratelimit-policy, x-request-id, idempotent-replayed",
);
/// Two hours, the most that Chromium keeps.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// An empty setting is as good as none.
pub(crate) fn given(origins: &[String]) -> impl Iterator<Item = &str> {
    let origins = origins.iter().map(String::as_str);
    origins.filter(|origin| !origin.is_empty())
}

impl Cors {
    /// `origins` are valid ([`problem`] says so).
    pub(crate) fn new(origins: &[String]) -> Self {
        let value = |origin: &str| HeaderValue::from_str(origin).expect("checked at start");
        Self {
            origins: given(origins).map(value).collect(),
        }
    }

    /// The answer to a browser that asks whether it may ask; `None` if this is no such question, or the answer is no.
    pub(crate) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        let asks = headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if *method != Method::OPTIONS || !asks || !self.allows(headers.get(header::ORIGIN)?) {
            return None;
        }
        let mut answer = StatusCode::NO_CONTENT.into_response();
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS),
            (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
        ] {
            answer.headers_mut().insert(name, value);
        }
        Some(answer)
    }

    /// Lets the page read an answer, whatever it is. Nothing while no origin is allowed.
    pub(crate) fn open(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        if self.origins.is_empty() {
            return;
        }
        // Also without an origin: a cache must not give this answer to a page that has one.
        answer.append(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = origin.filter(|origin| self.allows(origin)) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, ANSWER_HEADERS);
        }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.origins.contains(origin)
    }
}

/// What is wrong with a setting, if anything: browsers send scheme, host in small letters and a port that is not the
/// scheme's own, and an origin that is spelt otherwise would never match.
pub(crate) fn problem(origin: &str) -> Option<String> {
    let uri = origin.parse::<warp::http::Uri>().ok();
    let as_sent = uri.and_then(|uri| {
        let scheme = uri
            .scheme_str()
            .filter(|name| ["http", "https"].contains(name))?;
        let own = if scheme == "http" { 80 } else { 443 };
        let port = uri.port_u16().filter(|&port| port != own);
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        Some(format!("{scheme}://{}{port}", uri.host()?.to_lowercase()))
    });
    (as_sent.as_deref() != Some(origin)).then(|| {
        let known = as_sent.unwrap_or_else(|| "https://shop.example".to_owned());
        format!("CORS_ALLOWED_ORIGINS: {origin} is no origin as browsers send it, such as {known}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_spelt_as_browsers_send_it() {
        for good in [
            "https://shop.example",
            "http://localhost:3000",
            "http://[::1]:8080",
        ] {
            assert_eq!(problem(good), None, "{good}");
        }
        for bad in [
            "*",
            "null",
            "",
            "shop.example",
            "https://shop.example/",
            "https://Shop.example",
            "https://shop.example:443",
            "https://user@shop.example",
            "https://shop.example/path",
            "ftp://shop.example",
        ] {
            assert!(problem(bad).is_some(), "{bad}");
        }
    }
}
