//! What browsers and caches are told with every answer.
//!
//! No `Strict-Transport-Security`: it counts only over TLS, which ends at the proxy in front, and that knows whether the
//! whole host has it. No `Server`: a version is of use to attackers alone.

use warp::http::{HeaderMap, HeaderName, HeaderValue, header};

/// Sets what a handler did not set itself.
pub(crate) fn protect(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Answers are about one caller.
        (header::CACHE_CONTROL, "no-store"),
        // Ids stand in paths.
        (header::REFERRER_POLICY, "no-referrer"),
        // JSON that a browser takes for a page loads nothing and is framed by nobody.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
    ] {
        or_insert(headers, name, value);
    }
}

fn or_insert(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers
        .entry(name)
        .or_insert(HeaderValue::from_static(value));
}
