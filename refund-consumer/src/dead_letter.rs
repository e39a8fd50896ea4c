//! Records that cannot be used: why, and how they are kept.
//!
//! A dead letter is written in the claim's transaction, so before its offset may be stored, byte for byte as far as the
//! client hands it out; docs/EVENTS.md tells what it does not hand out of headers.

use shared::domain::dead_letter::{UNREADABLE_HEADER, encode_headers};

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
    UnknownSpecVersion,
    UnknownType,
    /// The value is said to be something else than JSON.
    OtherContentType,
    BadEventId,
    /// A header that is read has no value, or one that is no text.
    BadHeaders,
    DuplicateHeader,
    /// The client could not hand out every header; the letter lacks those.
    UnreadableHeader,
    /// A later event of a return, which has no place in this topic.
    OtherSeq,
    /// The subject is another return than the value says.
    OtherSubject,
    /// The key is another order than the value says.
    OtherKey,
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
    pub const ALL: [Self; 21] = [
        Self::Empty,
        Self::TooLarge,
        Self::NotJson,
        Self::TooDeep,
        Self::DuplicateKey,
        Self::WrongType,
        Self::MissingField,
        Self::UnknownSpecVersion,
        Self::UnknownType,
        Self::OtherContentType,
        Self::BadEventId,
        Self::BadHeaders,
        Self::DuplicateHeader,
        Self::UnreadableHeader,
        Self::OtherSeq,
        Self::OtherSubject,
        Self::OtherKey,
        Self::UnknownReturn,
        Self::OtherOrder,
        Self::OtherEvent,
        Self::ClaimFailed,
    ];

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
            Self::UnknownSpecVersion => "unknown_spec_version",
            Self::UnknownType => "unknown_type",
            Self::OtherContentType => "other_content_type",
            Self::BadEventId => "bad_event_id",
            Self::BadHeaders => "bad_headers",
            Self::DuplicateHeader => "duplicate_header",
            Self::UnreadableHeader => UNREADABLE_HEADER,
            Self::OtherSeq => "other_seq",
            Self::OtherSubject => "other_subject",
            Self::OtherKey => "other_key",
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
    /// As stored in `dead_letters.headers`.
    pub fn headers(&self) -> String {
        encode_headers(&self.record.headers)
    }
}
