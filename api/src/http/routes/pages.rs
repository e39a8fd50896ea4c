//! Public pages: the contract, a page that shows it, and one page for each kind of error.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use utoipa_swagger_ui::Config;
use warp::Reply;
use warp::http::{HeaderValue, Uri, header};
use warp::reply::Response;

use super::Page;
use crate::error::{ApiError, ErrorKind};
use crate::http::errors::Entry;
use crate::http::openapi::DOCUMENT;
use crate::http::public_url::PublicUrl;

/// Swagger UI loads only its own files and the contract, from this server; it sets styles on elements.
const PAGE_CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                        connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// These pages change only with a release.
const CACHED: HeaderValue = HeaderValue::from_static("public, max-age=300");

static SWAGGER: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    // Relative to the page, because a proxy may have put a prefix before both.
    let config = Config::new(["../openapi.json"]);
    Arc::new(config.validator_url("none").try_it_out_enabled(false))
});

pub(super) fn page(
    page: Page,
    parameter: &str,
    public_url: &PublicUrl,
) -> Result<Response, ApiError> {
    match page {
        Page::Contract => Ok(typed(DOCUMENT.as_ref().into_response(), "application/json")),
        Page::Docs => {
            let index = public_url.link("/docs/index.html");
            let index: Uri = index.parse().expect("a URL and a path");
            Ok(warp::redirect::see_other(index).into_response())
        }
        Page::DocsFile => docs_file(parameter),
        Page::Problem => problem(parameter),
    }
}

fn docs_file(name: &str) -> Result<Response, ApiError> {
    match utoipa_swagger_ui::serve(name, Arc::clone(&SWAGGER)) {
        Ok(Some(file)) => {
            // Not copied: a thousand readers of a large file need no more memory than one.
            let body = match file.bytes {
                Cow::Borrowed(bytes) => bytes.into_response(),
                Cow::Owned(bytes) => bytes.into_response(),
            };
            Ok(typed(body, &file.content_type))
        }
        Ok(None) => Err(ApiError::NotFound),
        Err(error) => {
            tracing::error!(%error, "a file of the documentation page cannot be served");
            Err(ApiError::Internal)
        }
    }
}

fn problem(code: &str) -> Result<Response, ApiError> {
    let mut entries = ErrorKind::catalogue().into_iter();
    let entry = entries.find(|entry| entry.code == code);
    let page = html(&entry.ok_or(ApiError::NotFound)?);
    Ok(typed(page.into_response(), "text/html; charset=utf-8"))
}

/// The catalogue has no characters that need escaping in HTML; a test checks this.
fn html(entry: &Entry) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<title>{title}</title>\n<h1>{title}</h1>\n<p>Status {status}, \
         <code>{code}</code></p>\n<h2>When</h2>\n<p>{when}</p>\n<h2>What to do</h2>\n<p>{advice}</p>\n</html>\n",
        title = entry.title,
        status = entry.status.as_u16(),
        code = entry.code,
        when = entry.when,
        advice = entry.advice
    )
}

fn typed(mut response: Response, content_type: &str) -> Response {
    let headers = response.headers_mut();
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    headers.insert(header::CACHE_CONTROL, CACHED);
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(PAGE_CSP),
    );
    response
}

#[cfg(test)]
mod tests {
    use warp::http::StatusCode;

    use super::*;

    #[test]
    fn the_catalogue_is_safe_as_html() {
        for entry in ErrorKind::catalogue() {
            for text in [entry.code, entry.title, entry.when, entry.advice] {
                assert!(!text.contains(['<', '>', '&']), "{text}");
            }
        }
    }

    #[test]
    fn the_page_of_the_contract_comes_from_the_crate() {
        for name in ["index.html", "swagger-ui.css", "swagger-ui-bundle.js"] {
            let file = docs_file(name).expect("in the crate");
            assert_eq!(file.status(), StatusCode::OK, "{name}");
        }
    }
}
