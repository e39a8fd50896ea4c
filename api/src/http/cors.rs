//! CORS: only pages of CORS_ALLOWED_ORIGINS may use the api in browsers.
//!
//! Never `*` and never credentials: callers send a token in `Authorization`, and a page of another origin has none. An
//! origin that is not listed gets no CORS header, so its browser hides the response from the page.

use warp::Reply;
use warp::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use warp::reply::Response;

#[derive(Debug)]
pub(super) struct Cors {
    origins: Vec<HeaderValue>,
}

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST");
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, if-match, if-none-match, last-event-id, x-request-id, traceparent, tracestate",
);
const RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "etag, location, link, content-disposition, retry-after, ratelimit, ratelimit-policy, x-request-id, idempotent-replayed",
);
/// Two hours, the longest that Chromium caches.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// The problems with the origins of the setting.
pub(crate) fn problems(origins: &[String]) -> impl Iterator<Item = String> {
    given(origins).filter_map(problem)
}

/// The origins of the setting, without empty ones.
fn given(origins: &[String]) -> impl Iterator<Item = &str> {
    let origins = origins.iter().map(String::as_str);
    origins.filter(|origin| !origin.is_empty())
}

impl Cors {
    /// `origins` are valid, as [`problem`] checks.
    pub(super) fn new(origins: &[String]) -> Self {
        let value = |origin: &str| HeaderValue::from_str(origin).expect("checked at start");
        Self {
            origins: given(origins).map(value).collect(),
        }
    }

    /// The response to a preflight request; `None` for another request, or for an origin that is not allowed.
    pub(super) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        let asks = headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if *method != Method::OPTIONS || !asks || !self.allows(headers.get(header::ORIGIN)?) {
            return None;
        }
        let mut response = StatusCode::NO_CONTENT.into_response();
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS),
            (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
        ] {
            response.headers_mut().insert(name, value);
        }
        Some(response)
    }

    /// Lets the page read the response. Does nothing if no origin is allowed.
    pub(super) fn open(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if self.origins.is_empty() {
            return;
        }
        // Also for a request without an origin: a cache must not give this response to a page that has one.
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = origin.filter(|origin| self.allows(origin)) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
        }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.origins.contains(origin)
    }
}

/// The problem with a setting, if any. Browsers send the scheme, the host in lower case, and the port unless it is the
/// scheme's default. An origin in another spelling would never match.
fn problem(origin: &str) -> Option<String> {
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
    fn an_origin_is_spelled_as_browsers_send_it() {
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
