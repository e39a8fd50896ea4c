//! What describes the api, for anyone: the contract, a page to read it by, and one page for each kind of error.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use utoipa_swagger_ui::Config;
use warp::filters::BoxedFilter;
use warp::http::{HeaderValue, header};
use warp::reply::Response;
use warp::{Filter, Reply};

use crate::error::{ApiError, Entry, ProblemType};
use crate::openapi::DOCUMENT;

/// Swagger UI loads its own files and the contract, nothing else and from nowhere else; it sets styles on elements.
const PAGE_CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                        connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// These change with a release only.
const CACHED: HeaderValue = HeaderValue::from_static("public, max-age=300");

static SWAGGER: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config = Config::new(["/openapi.json"]);
    Arc::new(config.validator_url("none").try_it_out_enabled(false))
});

pub(super) fn routes() -> BoxedFilter<(Response,)> {
    let contract = warp::path!("openapi.json")
        .map(|| typed(DOCUMENT.as_ref().into_response(), "application/json"));
    let docs = warp::path!("docs").map(|| {
        let index = warp::http::Uri::from_static("/docs/index.html");
        warp::redirect::see_other(index).into_response()
    });
    let file = warp::path!("docs" / String).map(|name: String| page_file(&name));
    let problem = warp::path!("problems" / String).map(|slug: String| explain(&slug));
    contract
        .or(docs)
        .unify()
        .or(file)
        .unify()
        .or(problem)
        .unify()
        .and(warp::get())
        .boxed()
}

fn page_file(name: &str) -> Response {
    match utoipa_swagger_ui::serve(name, Arc::clone(&SWAGGER)) {
        Ok(Some(file)) => {
            // Not copied: a thousand readers of a large file cost no more memory than one.
            let body = match file.bytes {
                Cow::Borrowed(bytes) => bytes.into_response(),
                Cow::Owned(bytes) => bytes.into_response(),
            };
            typed(body, &file.content_type)
        }
        Ok(None) => ApiError::NotFound.into_response(),
        Err(error) => {
            tracing::error!(%error, "a file of the documentation page cannot be served");
            ApiError::Internal.into_response()
        }
    }
}

fn explain(slug: &str) -> Response {
    let entry = ProblemType::catalogue()
        .into_iter()
        .find(|entry| entry.slug == slug);
    match entry {
        Some(entry) => typed(html(&entry).into_response(), "text/html; charset=utf-8"),
        None => ApiError::NotFound.into_response(),
    }
}

/// The catalogue holds no characters that HTML would take for its own, which a test checks.
fn html(entry: &Entry) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<title>{title}</title>\n<h1>{title}</h1>\n<p>Status {status}, \
         <code>{slug}</code></p>\n<h2>When</h2>\n<p>{when}</p>\n<h2>What to do</h2>\n<p>{advice}</p>\n</html>\n",
        title = entry.title,
        status = entry.status.as_u16(),
        slug = entry.slug,
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
        for entry in ProblemType::catalogue() {
            for text in [entry.slug, entry.title, entry.when, entry.advice] {
                assert!(!text.contains(['<', '>', '&']), "{text}");
            }
        }
    }

    #[test]
    fn the_page_of_the_contract_comes_from_the_crate() {
        for name in ["index.html", "swagger-ui.css", "swagger-ui-bundle.js"] {
            assert_eq!(page_file(name).status(), StatusCode::OK, "{name}");
        }
    }
}
