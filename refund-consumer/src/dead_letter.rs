//! Records that cannot be used: why, and how they are kept.
//!
//! A dead letter is written in the claim's transaction, so before its offset may be stored. It keeps the record byte for
//! byte as far as the client returns it; docs/EVENTS.md names the headers that it does not return.

use std::sync::Arc;

use shared::domain::dead_letter::encode_headers;
use strum::{IntoStaticStr, VariantNames};

use crate::message::Record;

/// Why a record became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
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
    /// The header says that the value is not JSON.
    OtherContentType,
    BadEventId,
    /// A header that we read has no value, or its value is not text.
    BadHeaders,
    DuplicateHeader,
    /// The client could not return every header; the dead letter lacks those.
    UnreadableHeader,
    /// A later event of a return, which does not belong to this topic.
    OtherSeq,
    /// The subject names another return than the value.
    OtherSubject,
    /// The key names another order than the value.
    OtherKey,
    /// No such return. An event is only published after its row was committed.
    UnknownReturn,
    /// The return belongs to another order than the record.
    OtherOrder,
    /// Another event opened the return, as after a restored backup.
    OtherEvent,
    /// The return could not be claimed, and a retry would not help; the scan finds it too.
    ClaimFailed,
}

impl Reason {
    /// As stored in `dead_letters.reason` and counted.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A record and why it became a dead letter.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    pub record: Arc<Record>,
    pub reason: Reason,
}

impl DeadLetter {
    /// As stored in `dead_letters.headers`.
    pub fn headers(&self) -> String {
        encode_headers(&self.record.headers)
    }
}

#[cfg(test)]
mod tests {
    use shared::domain::dead_letter::UNREADABLE_HEADER;

    use super::*;

    #[test]
    fn returnsctl_knows_the_reason_for_missing_headers() {
        assert_eq!(Reason::UnreadableHeader.as_str(), UNREADABLE_HEADER);
    }
}
