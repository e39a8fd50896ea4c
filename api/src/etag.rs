//! Entity tags of returns, and the conditions that clients put on them (RFC 9110, 13.1).

use warp::http::{HeaderMap, HeaderName};

use crate::error::ApiError;

/// The `ETag` of a return: its version, which every change raises.
pub(crate) fn etag(version: i32) -> String {
    format!("\"{version}\"")
}

/// What `If-Match` or `If-None-Match` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tags {
    /// `*`: whichever there is.
    Any,
    /// Opaque tags with their quotes; before a weak one stands `W/`.
    Listed(Vec<String>),
}

impl Tags {
    /// What all lines of the header `name` say together; `None` if there is none.
    ///
    /// # Errors
    /// [`ApiError::BadRequest`] for what is neither `*` nor tags.
    pub(crate) fn of(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, ApiError> {
        let mut tags = Vec::new();
        for value in headers.get_all(name) {
            let value = value.to_str().map_err(|_| unreadable(name))?;
            tags.extend(value.split(',').map(|tag| tag.trim().to_owned()));
        }
        match tags.as_slice() {
            [] => Ok(None),
            [any] if any == "*" => Ok(Some(Self::Any)),
            tags if tags.iter().all(|tag| is_tag(tag)) => Ok(Some(Self::Listed(tags.to_vec()))),
            _ => Err(unreadable(name)),
        }
    }

    /// As `If-Match` does it: a weak tag never matches (13.1.1).
    pub(crate) fn match_strongly(&self, version: i32) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(tags) => tags.contains(&etag(version)),
        }
    }

    /// As `If-None-Match` does it: a weak tag is as good as a strong one (13.1.2).
    pub(crate) fn match_weakly(&self, version: i32) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(tags) => tags.iter().any(|tag| opaque(tag) == etag(version)),
        }
    }
}

fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

fn is_tag(tag: &str) -> bool {
    let opaque = opaque(tag);
    opaque.len() >= 2 && opaque.starts_with('"') && opaque.ends_with('"')
}

fn unreadable(name: &HeaderName) -> ApiError {
    ApiError::BadRequest(format!(
        "{name} must be the return's ETag with its quotes, such as \"3\", or *"
    ))
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderValue;
    use warp::http::header::IF_MATCH;

    use super::*;

    fn read(values: &[&str]) -> Result<Option<Tags>, ApiError> {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_str(value).expect("visible ASCII");
            headers.append(IF_MATCH, value);
        }
        Tags::of(&headers, &IF_MATCH)
    }

    fn tags(tags: &[&str]) -> Tags {
        Tags::Listed(tags.iter().map(|tag| (*tag).to_owned()).collect())
    }

    #[test]
    fn a_condition_is_any_or_tags_with_quotes() {
        assert_eq!(read(&["*"]), Ok(Some(Tags::Any)));
        assert_eq!(read(&["\"3\""]), Ok(Some(tags(&["\"3\""]))));
        assert_eq!(
            read(&["\"3\", W/\"4\"", "\"5\""]),
            Ok(Some(tags(&["\"3\"", "W/\"4\"", "\"5\""])))
        );
        assert_eq!(read(&[]), Ok(None));
        for bad in ["3", "", "\"3", "\"", "\"3\", *", "\"3\" \"4\"x"] {
            assert_eq!(read(&[bad]), Err(unreadable(&IF_MATCH)), "{bad}");
        }
    }

    #[test]
    fn a_weak_tag_matches_weakly_alone() {
        for (tags, strongly, weakly) in [
            (Tags::Any, true, true),
            (tags(&["\"4\""]), true, true),
            (tags(&["\"3\"", "\"4\""]), true, true),
            (tags(&["W/\"4\""]), false, true),
            (tags(&["\"3\"", "\"44\""]), false, false),
        ] {
            assert_eq!(tags.match_strongly(4), strongly, "{tags:?}");
            assert_eq!(tags.match_weakly(4), weakly, "{tags:?}");
        }
    }
}
