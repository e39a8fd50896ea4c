//! The address at which clients reach the api, where a proxy has put a prefix before its paths.

use std::str::FromStr;

use warp::http::Uri;

/// Without a slash at the end. Empty: links begin with the api's own paths.
#[derive(Debug, Clone, Default)]
pub struct PublicUrl(String);

impl FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let uri: Uri = text.parse().map_err(|_| format!("{text:?} is no URL"))?;
        let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
        let has_user = uri
            .authority()
            .is_some_and(|host| host.as_str().contains('@'));
        if !is_web || has_user || text.contains(['?', '#']) {
            return Err(format!(
                "{text:?} is not a URL with http or https, a host, and at most a path"
            ));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl PublicUrl {
    /// A link to this path of the api.
    pub(super) fn link(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_has_the_prefix_of_the_public_address() {
        let link = |base: &str| base.parse::<PublicUrl>().map(|url| url.link("/returns/1"));
        for (base, expected) in [
            ("", "/returns/1"),
            ("https://api.example", "https://api.example/returns/1"),
            (
                "https://shop.example/r/v1/",
                "https://shop.example/r/v1/returns/1",
            ),
            ("http://[::1]:8080/r", "http://[::1]:8080/r/returns/1"),
        ] {
            assert_eq!(link(base).as_deref(), Ok(expected), "{base}");
        }
        for bad in [
            "/r",
            "shop.example",
            "ftp://shop.example",
            "https://shop.example?a=1",
            "https://shop.example/#r",
            "https://me@shop.example",
            "https://",
            "https://shop example",
        ] {
            assert!(link(bad).is_err(), "{bad}");
        }
    }
}
