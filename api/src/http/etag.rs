//! Entity tags of returns, and conditional requests (RFC 9110, 13.1).

use warp::http::{HeaderMap, HeaderName};

use crate::decisions::Versions;
use crate::error::ApiError;

/// The `ETag` of a return: its version, which every change raises.
pub(super) fn etag(version: i32) -> String {
    format!("\"{version}\"")
}

/// The value of `If-Match` or `If-None-Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tags {
    /// `*`: any version.
    Any,
    /// Opaque tags with their quotes; a weak tag begins with `W/`.
    Listed(Vec<String>),
}

impl Tags {
    /// The values of all lines of the header `name`; `None` if there is none.
    ///
    /// # Errors
    /// [`ApiError::BadRequest`] for a value that is neither `*` nor a list of tags.
    pub(super) fn of(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, ApiError> {
        let unreadable = || {
            ApiError::BadRequest(format!(
                "{name} must be the return's ETag with its quotes, such as \"3\", or *"
            ))
        };
        let lines: Vec<&str> = headers
            .get_all(name)
            .iter()
            .map(|line| line.to_str().map_err(|_| unreadable()))
            .collect::<Result<_, _>>()?;
        match lines.as_slice() {
            [] => Ok(None),
            [any] if any.trim() == "*" => Ok(Some(Self::Any)),
            lines => {
                let mut tags = Vec::new();
                for line in lines {
                    list(line, &mut tags).ok_or_else(unreadable)?;
                }
                // An empty list names no version.
                if tags.is_empty() {
                    return Err(unreadable());
                }
                Ok(Some(Self::Listed(tags)))
            }
        }
    }

    /// For `If-Match`: a weak tag never matches (13.1.1).
    pub(super) fn versions(&self) -> Versions {
        let version = |tag: &String| {
            let version = tag.trim_matches('"').parse().ok();
            version.filter(|version| etag(*version) == *tag)
        };
        match self {
            Self::Any => Versions::Any,
            Self::Listed(tags) => Versions::Listed(tags.iter().filter_map(version).collect()),
        }
    }

    /// For `If-None-Match`: a weak tag matches like a strong one (13.1.2).
    pub(super) fn match_weakly(&self, version: i32) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(tags) => tags.iter().any(|tag| opaque(tag) == etag(version)),
        }
    }
}

fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// The tags of one line. Its elements may be empty (RFC 9110, 5.6.1), and a tag may contain commas (8.8.3).
fn list(line: &str, tags: &mut Vec<String>) -> Option<()> {
    let mut rest = line.trim();
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix(',') {
            rest = behind.trim_start();
            continue;
        }
        let quoted = opaque(rest).strip_prefix('"')?;
        let (_, behind) = quoted.split_once('"')?;
        tags.push(rest[..rest.len() - behind.len()].to_owned());
        rest = behind.trim_start();
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
    }
    Some(())
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
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["*"]), Ok(Some(Tags::Any)));
        for (values, expected) in [
            (&[r#""3""#][..], &[r#""3""#][..]),
            (
                &[r#""3", W/"4""#, r#""5""#],
                &[r#""3""#, r#"W/"4""#, r#""5""#],
            ),
            (&[r#","3",, "4" ,"#], &[r#""3""#, r#""4""#]),
            (&[r#""a,b","3""#], &[r#""a,b""#, r#""3""#]),
            (&[r#""""#], &[r#""""#]),
        ] {
            assert_eq!(read(values), Ok(Some(tags(expected))), "{values:?}");
        }
        for bad in [
            "3",
            "",
            ",",
            r#""3"#,
            r#"""#,
            r#""3", *"#,
            r#""3" "4""#,
            r#""3"x"#,
            r#"w/"3""#,
        ] {
            let refused = read(&[bad]);
            assert!(matches!(refused, Err(ApiError::BadRequest(_))), "{bad}");
        }
    }

    #[test]
    fn a_weak_tag_matches_only_weakly() {
        for (tags, strongly, weakly) in [
            (Tags::Any, true, true),
            (tags(&["\"4\""]), true, true),
            (tags(&["\"3\"", "\"4\""]), true, true),
            (tags(&["W/\"4\""]), false, true),
            (tags(&["\"3\"", "\"44\""]), false, false),
        ] {
            assert_eq!(tags.versions().contain(4), strongly, "{tags:?}");
            assert_eq!(tags.match_weakly(4), weakly, "{tags:?}");
        }
    }
}
