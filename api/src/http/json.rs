//! Bodies as JSON objects, parsed strictly. Errors name the field.

use serde::de::{DeserializeOwned, IgnoredAny};
use warp::http::{HeaderMap, header};

use crate::error::{ApiError, FieldError};

/// `application/json`, with or without parameters. A missing type is refused too.
pub(super) fn require(headers: &HeaderMap) -> Result<(), ApiError> {
    let media_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(str::trim);
    match media_type {
        Some(media_type) if media_type.eq_ignore_ascii_case("application/json") => Ok(()),
        _ => Err(ApiError::UnsupportedMediaType),
    }
}

/// Parses an object. `T` refuses unknown fields.
///
/// # Errors
/// [`ApiError::InvalidFields`] for JSON of another shape, [`ApiError::BadRequest`] for a body that is not JSON.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // serde would also accept an array of the fields' values.
    if body.trim_ascii_start().first() != Some(&b'{')
        && serde_json::from_slice::<IgnoredAny>(body).is_ok()
    {
        let problem = FieldError::new("", "the body must be a JSON object");
        return Err(ApiError::InvalidFields(vec![problem]));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed: T = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.into_inner();
        if cause.is_data() {
            let message = cause.to_string();
            ApiError::InvalidFields(vec![FieldError::new(&field(&path, &message), message)])
        } else {
            ApiError::BadRequest(format!("the body is not valid JSON: {cause}"))
        }
    })?;
    json.end()
        .map_err(|error| ApiError::BadRequest(format!("the body is not valid JSON: {error}")))?;
    Ok(parsed)
}

/// The field of serde's error. The path names a field of the wrong type; only the message, between back-quotes, names a
/// field that is missing or repeated.
fn field(path: &str, message: &str) -> String {
    match message.split('`').nth(1) {
        Some(name) if path == "." => name.to_owned(),
        _ => path.to_owned(),
    }
}

/// The longest [code](is_code): `returns.reason_code`.
pub(super) const CODE_MAX: usize = 32;

/// A code of the shop: 1 to 32 of a-z, 0-9 and _.
pub(super) fn is_code(code: &str) -> bool {
    (1..=CODE_MAX).contains(&code.len())
        && code
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// The error for text that is not a [code](is_code).
pub(super) fn code_problem(code: Option<&str>) -> Option<FieldError> {
    code.filter(|code| !is_code(code)).map(|_| {
        FieldError::new(
            "reason_code",
            format!("must be 1 to {CODE_MAX} of a-z, 0-9 and _"),
        )
    })
}
