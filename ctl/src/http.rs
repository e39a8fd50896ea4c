//! The HTTP servers that a command asks.

use reqwest::{Client, StatusCode, Url};

use crate::error::CtlError;

/// The value of the setting `name`, which a message names without its value: that may have a password.
pub(crate) fn parse_url(name: &str, text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok();
    url.filter(|url| matches!(url.scheme(), "http" | "https"))
        .ok_or_else(|| format!("{name} must be a URL that begins with http:// or https://"))
}

/// No proxy stands between an operator and our own servers.
pub(crate) fn client() -> Result<Client, CtlError> {
    let client = Client::builder().no_proxy().build();
    client.map_err(|error| CtlError::Refused {
        problem: "cannot start an HTTP client".to_owned(),
        source: Box::new(error),
    })
}

/// The status and the body of a page with at most `limit` bytes; `server` is its name in messages. The caller has a deadline.
///
/// # Errors
/// The server cannot be reached, or sends more.
pub(crate) async fn get(
    client: &Client,
    url: &str,
    limit: usize,
    server: &str,
) -> Result<(StatusCode, Vec<u8>), CtlError> {
    // The URL may have a password.
    let away = |error: reqwest::Error| CtlError::Unreachable {
        server: server.to_owned(),
        source: Box::new(error.without_url()),
    };
    let mut response = client.get(url).send().await.map_err(away)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(away)? {
        if body.len() + chunk.len() > limit {
            let text = format!("{server} sends more than {limit} bytes");
            return Err(CtlError::Problem(text));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((response.status(), body))
}
