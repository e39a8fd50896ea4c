//! Why a record cannot be used.

use strum::{IntoStaticStr, VariantNames};

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
