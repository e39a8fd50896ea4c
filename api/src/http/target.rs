//! Checks that a request is for this server: its version, its method, its target and its `Host`.
//!
//! hyper leaves this to its users. A proxy that reads one of them differently could send requests here that are meant for
//! another server, so an ambiguous request is refused.

use warp::http::uri::Authority;
use warp::http::{HeaderMap, HeaderValue, Method, Request, Version, header};

use crate::error::ApiError;

/// RFC 9110, 4.1 requires at least 8000. The longest target of this API, a list with every filter, has some 300.
const TARGET_MAX: usize = 8 * 1024;

/// # Errors
/// What the client has to change. Nothing of the request was used yet.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), ApiError> {
    if request.version() != Version::HTTP_11 {
        return Err(ApiError::HttpVersionNotSupported);
    }
    if [Method::CONNECT, Method::TRACE].contains(request.method()) {
        return Err(ApiError::MethodNotAllowed);
    }
    let host = host(request.headers())?;
    let mut encodings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    let chunked = |name: &HeaderValue| name.as_bytes().eq_ignore_ascii_case(b"chunked");
    if !encodings.next().is_none_or(chunked) || encodings.next().is_some() {
        let detail = "the only transfer encoding is chunked, once";
        return Err(ApiError::BadRequest(detail.to_owned()));
    }
    let uri = request.uri();
    if uri
        .path_and_query()
        .is_some_and(|target| target.as_str().len() > TARGET_MAX)
    {
        return Err(ApiError::UriTooLong);
    }
    // RFC 9112, 3.2.2: a target with scheme and host is for proxies, but servers must accept it. It must match `Host`.
    let ours = uri
        .authority()
        .is_none_or(|named| uri.scheme().is_some() && *named == host);
    if !ours || !uri.path().starts_with('/') {
        let detail = "the request target must be a path, or name the same host as Host";
        return Err(ApiError::BadRequest(detail.to_owned()));
    }
    Ok(())
}

/// The only `Host`, which is required (RFC 9112, 3.2).
fn host(headers: &HeaderMap) -> Result<Authority, ApiError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let only = hosts.next().filter(|_| hosts.next().is_none());
    let host = only.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    host.filter(|host| !host.as_str().contains('@'))
        .ok_or_else(|| ApiError::BadRequest("exactly one valid Host is required".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(method: &str, target: &str, hosts: &[&str]) -> Result<(), ApiError> {
        let mut request = Request::builder().method(method).uri(target);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        check(&request.body(()).expect("a request"))
    }

    #[test]
    fn only_one_transfer_encoding_is_accepted() {
        for (encodings, good) in [
            (&["Chunked"][..], true),
            (&["gzip, chunked"], false),
            (&["chunked, chunked"], false),
            (&["chunked", "chunked"], false),
        ] {
            let mut request = Request::builder().uri("/").header("host", "a");
            for encoding in encodings {
                request = request.header(header::TRANSFER_ENCODING, *encoding);
            }
            let checked = check(&request.body(()).expect("a request"));
            assert_eq!(checked.is_ok(), good, "{encodings:?}");
        }
    }

    #[test]
    fn a_request_for_this_server_is_accepted() {
        for (target, host) in [
            ("/returns", "api.example"),
            ("/returns?limit=1", "127.0.0.1:8080"),
            ("http://api.example/returns", "API.example"),
            ("/", "[::1]:8080"),
        ] {
            assert_eq!(checked("GET", target, &[host]), Ok(()), "{target} {host}");
        }
    }

    #[test]
    fn a_request_for_another_server_or_an_ambiguous_one_is_refused() {
        for (target, hosts) in [
            ("/returns", &[][..]),
            ("/returns", &["a", "a"]),
            ("/returns", &["a b"]),
            ("/returns", &["a/b"]),
            ("/returns", &["user@a"]),
            ("/returns", &[""]),
            ("http://b/returns", &["a"]),
            ("a:80", &["a:80"]),
            ("*", &["a"]),
        ] {
            let refused = checked("GET", target, hosts);
            assert!(
                matches!(refused, Err(ApiError::BadRequest(_))),
                "{target} {hosts:?}"
            );
        }
        for method in ["TRACE", "CONNECT"] {
            let refused = checked(method, "/", &["a"]);
            assert_eq!(refused, Err(ApiError::MethodNotAllowed));
        }
        let long = format!("/{}", "x".repeat(TARGET_MAX));
        assert_eq!(checked("GET", &long, &["a"]), Err(ApiError::UriTooLong));
        let mut old = Request::new(());
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(check(&old), Err(ApiError::HttpVersionNotSupported));
    }
}
