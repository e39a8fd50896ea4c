//! Records that cannot be used: why, and how they are kept.
//!
//! A dead letter is written in the claim's transaction, so before its offset may be stored; nothing of it is lost.

use serde_json::{Value, json};

use crate::message::Record;

/// Why a record was put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Empty,
    TooLarge,
    NotJson,
    TooDeep,
    DuplicateKey,
    WrongType,
    MissingField,
    UnknownType,
    BadEventId,
    BadHeaders,
    /// No such return. Its event is only published after its row was committed.
    UnknownReturn,
    /// The return belongs to another order than the record says.
    OtherOrder,
    /// The return was opened by another event, as after a restored backup.
    OtherEvent,
    /// The return could not be claimed for a reason that trying again does not cure; the scan finds it too.
    ClaimFailed,
}

impl Reason {
    /// As stored in `dead_letters.reason` and counted.
    pub fn code(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLarge => "too_large",
            Self::NotJson => "not_json",
            Self::TooDeep => "too_deep",
            Self::DuplicateKey => "duplicate_key",
            Self::WrongType => "wrong_type",
            Self::MissingField => "missing_field",
            Self::UnknownType => "unknown_type",
            Self::BadEventId => "bad_event_id",
            Self::BadHeaders => "bad_headers",
            Self::UnknownReturn => "unknown_return",
            Self::OtherOrder => "other_order",
            Self::OtherEvent => "other_event",
            Self::ClaimFailed => "claim_failed",
        }
    }
}

/// A record and why it was put aside.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetter<'a> {
    pub record: &'a Record,
    pub reason: Reason,
}

impl DeadLetter<'_> {
    /// `[["name","hex of the value"], ["name",null]]`, in the record's order: values are bytes, not text.
    pub fn headers(&self) -> String {
        let headers: Vec<Value> = self
            .record
            .headers
            .iter()
            .map(|(name, value)| json!([name, value.as_deref().map(hex)]))
            .collect();
        Value::from(headers).to_string()
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_order_repeats_nulls_and_bytes() {
        let record = Record {
            headers: vec![
                ("b".to_owned(), Some(vec![0, 0xff])),
                ("a".to_owned(), None),
                ("b".to_owned(), Some(Vec::new())),
            ],
            ..Record::default()
        };
        let letter = DeadLetter {
            record: &record,
            reason: Reason::Empty,
        };
        assert_eq!(letter.headers(), r#"[["b","00ff"],["a",null],["b",""]]"#);
    }
}
