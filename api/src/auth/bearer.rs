//! The bearer token of a request (RFC 6750).

use warp::http::{HeaderMap, header};

/// Why a request has no token to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoBearer {
    #[error("no Authorization header")]
    Missing,
    #[error("not exactly one `Authorization: Bearer` with a token of at most AUTH_TOKEN_MAX_BYTES")]
    Malformed,
}

impl NoBearer {
    /// A metric label.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
        }
    }
}

/// The token of the only `Authorization: Bearer` header, with at most `max` bytes. No query and no cookie carries a token.
///
/// # Errors
/// There is no such header, or more than one, or the token is too long.
pub fn bearer(headers: &HeaderMap, max: usize) -> Result<&str, NoBearer> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(NoBearer::Missing)?;
    if values.next().is_some() {
        return Err(NoBearer::Malformed);
    }
    let value = value.to_str().map_err(|_| NoBearer::Malformed)?;
    let (scheme, token) = value.split_once(' ').ok_or(NoBearer::Malformed)?;
    let token = token.trim();
    if scheme.eq_ignore_ascii_case("bearer") && (1..=max).contains(&token.len()) {
        Ok(token)
    } else {
        Err(NoBearer::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderValue;

    use super::*;

    #[test]
    fn exactly_one_bearer_header_is_needed() {
        let with = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                let value = HeaderValue::from_str(value).expect("visible ASCII");
                headers.append(header::AUTHORIZATION, value);
            }
            bearer(&headers, 8).map(str::to_owned)
        };
        assert_eq!(with(&["Bearer abc"]), Ok("abc".to_owned()));
        assert_eq!(with(&["bearer  abc"]), Ok("abc".to_owned()));
        assert_eq!(with(&["Bearer abcdefgh"]), Ok("abcdefgh".to_owned()));
        for bad in [
            &["Basic abc"][..],
            &["Bearer"],
            &["Bearer "],
            &["Bearer a", "Bearer b"],
            &["Bearer abcdefghi"],
        ] {
            assert_eq!(with(bad), Err(NoBearer::Malformed), "{bad:?}");
        }
        assert_eq!(with(&[]), Err(NoBearer::Missing));
    }
}
