//! Security headers of every response, for browsers and caches.
//!
//! No `Strict-Transport-Security`: it counts only over TLS, which ends at the proxy in front; only the proxy knows whether
//! the whole host uses TLS. No `Server`: only attackers need the version.

use warp::http::{HeaderMap, HeaderName, HeaderValue, header};

/// Sets the headers that the endpoint did not set itself.
pub(super) fn protect(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Responses are for one caller.
        (header::CACHE_CONTROL, "no-store"),
        // Paths contain ids.
        (header::REFERRER_POLICY, "no-referrer"),
        // If a browser shows JSON as a page, it loads nothing, and no other page can frame it.
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
