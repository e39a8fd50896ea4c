//! Bodies as JSON objects, read strictly and field by field, so that the response names every wrong field, in words of the
//! API and not of a parser.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use shared::domain::reason_code::{REASON_CODE, is_reason_code};
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

/// The fields of a body. Each is taken by its name; [`Fields::finish`] tells of all problems.
#[derive(Debug, Default)]
pub(super) struct Fields {
    left: Members,
    errors: Vec<FieldError>,
}

/// An object's members as they are written: a map would hide that one is given twice.
#[derive(Debug, Default)]
struct Members(Vec<(String, Value)>);

/// Unknown fields that are named. A body can have thousands, and the response should not be larger than the request.
const UNKNOWN_MAX: usize = 16;

const WHOLE_NUMBER: &str = "must be a whole number from 1 to 9223372036854775807";

impl Fields {
    /// # Errors
    /// [`ApiError::BadRequest`] for a body that is not JSON, [`ApiError::InvalidFields`] for one that is no object.
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let not_json = |cause: serde_json::Error| {
            ApiError::BadRequest(format!("the body is not valid JSON: {cause}"))
        };
        if body.trim_ascii_start().first() != Some(&b'{') {
            serde_json::from_slice::<IgnoredAny>(body).map_err(not_json)?;
            let problem = FieldError::in_body(None, "must be a JSON object");
            return Err(ApiError::InvalidFields(vec![problem]));
        }
        Ok(Self {
            left: serde_json::from_slice(body).map_err(not_json)?,
            errors: Vec::new(),
        })
    }

    /// A positive id that must be there; 0 if it is wrong, which [`Fields::finish`] refuses.
    pub(super) fn required_id(&mut self, name: &str) -> i64 {
        self.required(name, |fields| fields.id(name))
    }

    /// Text that must be there; empty if it is wrong, which [`Fields::finish`] refuses.
    pub(super) fn required_text(&mut self, name: &str) -> String {
        self.required(name, |fields| fields.text(name, |_| None))
    }

    fn required<T: Default>(&mut self, name: &str, read: impl FnOnce(&mut Self) -> Option<T>) -> T {
        let known = self.errors.len();
        let value = read(self);
        if value.is_none() && self.errors.len() == known {
            self.wrong(name, "is required");
        }
        value.unwrap_or_default()
    }

    /// A positive id.
    pub(super) fn id(&mut self, name: &str) -> Option<i64> {
        let value = self.take(name)?;
        let id = value.as_i64().filter(|id| *id > 0);
        if id.is_none() {
            self.wrong(name, WHOLE_NUMBER);
        }
        id
    }

    /// Text about which `problems` has nothing to say.
    pub(super) fn text<P>(&mut self, name: &str, problems: impl FnOnce(&str) -> P) -> Option<String>
    where
        P: IntoIterator<Item = String>,
    {
        let Value::String(text) = self.take(name)? else {
            self.wrong(name, "must be text");
            return None;
        };
        for problem in problems(&text) {
            self.wrong(name, problem);
        }
        Some(text)
    }

    /// A code of the shop.
    pub(super) fn code(&mut self, name: &str) -> Option<String> {
        let problem =
            |code: &str| (!is_reason_code(code)).then(|| format!("must be {REASON_CODE}"));
        self.text(name, problem)
    }

    /// # Errors
    /// Every field that is wrong, given twice or unknown.
    pub(super) fn finish(mut self) -> Result<(), ApiError> {
        let unknown = std::mem::take(&mut self.left.0);
        for (name, _) in unknown.iter().take(UNKNOWN_MAX) {
            self.wrong(name, "is not a field of this request");
        }
        self.finish_open()
    }

    /// For a body that another party defines, and to which it may add fields.
    ///
    /// # Errors
    /// Every field that is wrong or given twice.
    pub(super) fn finish_open(self) -> Result<(), ApiError> {
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(ApiError::InvalidFields(self.errors))
        }
    }

    /// `null` means the same as a field that is left out.
    fn take(&mut self, name: &str) -> Option<Value> {
        let mut values = self.left.take(name);
        if values.len() > 1 {
            self.wrong(name, "is given more than once");
            return None;
        }
        values.pop().filter(|value| !value.is_null())
    }

    fn wrong(&mut self, name: &str, detail: impl Into<String>) {
        self.errors.push(FieldError::in_body(Some(name), detail));
    }
}

impl Members {
    fn take(&mut self, name: &str) -> Vec<Value> {
        let taken = self.0.extract_if(.., |(known, _)| known == name);
        taken.map(|(_, value)| value).collect()
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        json.deserialize_map(Object)
    }
}
