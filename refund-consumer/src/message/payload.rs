//! The value of a record: one JSON object, of which three fields are read.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use shared::domain::ids::{OrderId, ReturnId};

use super::Reason;

/// Larger values are not read. A new return takes 40 bytes; the rest is room for added fields.
pub const MAX_PAYLOAD_BYTES: usize = 64 * 1024;

/// The fields that are read; all others are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Payload {
    pub(super) return_id: ReturnId,
    pub(super) order_id: OrderId,
    /// A new return's event has no such field; later events have.
    pub(super) seq: Option<i64>,
}

impl Payload {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Reason> {
        if bytes.is_empty() {
            return Err(Reason::Empty);
        }
        if bytes.len() > MAX_PAYLOAD_BYTES {
            return Err(Reason::TooLarge);
        }
        let json = serde_json::from_slice(bytes).map_err(|error| reason(&error))?;
        let Json::Object(fields) = json else {
            return Err(Reason::WrongType);
        };
        let number = |name: &str| match fields.get(name) {
            None => Ok(None),
            Some(Json::Integer(number)) if *number > 0 => Ok(Some(*number)),
            Some(_) => Err(Reason::WrongType),
        };
        let id = |name: &str| number(name)?.ok_or(Reason::MissingField);
        Ok(Self {
            return_id: ReturnId(id("return_id")?),
            order_id: OrderId(id("order_id")?),
            seq: number("seq")?,
        })
    }
}

const DUPLICATE: &str = "duplicate key";

/// serde_json has no categories for these errors, nor for our own, so their texts are compared; each text has a test.
fn reason(error: &serde_json::Error) -> Reason {
    let text = error.to_string();
    match error.classify() {
        _ if text.starts_with("recursion limit exceeded") => Reason::TooDeep,
        _ if text.starts_with(DUPLICATE) => Reason::DuplicateKey,
        // Beyond a double, so not an id either.
        _ if text.starts_with("number out of range") => Reason::WrongType,
        Category::Data => Reason::WrongType,
        Category::Io | Category::Syntax | Category::Eof => Reason::NotJson,
    }
}

/// Any JSON value, as far as it is read. No object has a key twice: readers disagree on which of the two values counts.
enum Json {
    Integer(i64),
    Object(BTreeMap<String, Json>),
    Other,
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyJson)
    }
}

struct AnyJson;

impl<'de> Visitor<'de> for AnyJson {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Integer(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json, E> {
        Ok(i64::try_from(number).map_or(Json::Other, Json::Integer))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        while items.next_element::<Json>()?.is_some() {}
        Ok(Json::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some((key, value)) = entries.next_entry()? {
            if fields.insert(key, value).is_some() {
                return Err(A::Error::custom(DUPLICATE));
            }
        }
        Ok(Json::Object(fields))
    }
}
