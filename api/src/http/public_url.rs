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
        if !is_encoded(uri.path()) {
            return Err(format!(
                "{text:?}: other characters than letters, digits and -._~!$&'()*+,;=:@ must be percent-encoded"
            ));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

/// Whether a path may stand in `Location` as it is (RFC 3986, 3.3). [`Uri`] accepts more.
fn is_encoded(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte);
    let is_hex = |rest: &str| {
        let hex = rest.bytes().take(2).filter(u8::is_ascii_hexdigit);
        hex.count() == 2
    };
    path.bytes().all(|byte| byte == b'%' || is_plain(byte)) && path.split('%').skip(1).all(is_hex)
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
            (
                "https://shop.example/r%C3%BCckgaben/a~b",
                "https://shop.example/r%C3%BCckgaben/a~b/returns/1",
            ),
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
            "https://shop.example/r\u{fc}ckgaben",
            "https://sh\u{f6}p.example/r",
            "https://shop.example/{r}",
            "https://shop.example/r\"",
            "https://shop.example/r%C",
            "https://shop.example/r%FG",
        ] {
            assert!(link(bad).is_err(), "{bad}");
        }
        let refused = link("https://shop.example/r\u{fc}ckgaben").expect_err("not ASCII");
        assert!(refused.contains("percent-encoded"), "{refused}");
    }
}
