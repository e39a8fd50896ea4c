//! Records that cannot be used, as they are kept.
//!
//! A dead letter is written in the claim's transaction, so before its offset may be stored. It keeps the record byte for
//! byte as far as the client returns it; docs/EVENTS.md names the headers that it does not return.

use std::sync::Arc;

use shared::domain::dead_letter::encode_headers;

use crate::message::{Reason, Record};

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

    use crate::message::Reason;

    #[test]
    fn returnsctl_knows_the_reason_for_missing_headers() {
        assert_eq!(Reason::UnreadableHeader.as_str(), UNREADABLE_HEADER);
    }
}
