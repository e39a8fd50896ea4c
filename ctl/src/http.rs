//! The HTTP servers that a command asks.

use reqwest::Url;

/// The value of the setting `name`, which a message names without its value: that may have a password.
pub(crate) fn parse_url(name: &str, text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok();
    url.filter(|url| matches!(url.scheme(), "http" | "https"))
        .ok_or_else(|| format!("{name} must be a URL that begins with http:// or https://"))
}
