//! What the provider answered to an attempt that it refuses.

use crate::text::{counted, printable};

/// For a person; `None` if it has not refused it.
pub(super) fn answer_note(refusals: i32, provider_answer: Option<&str>) -> Option<String> {
    let words = printable(provider_answer?);
    Some(format!(
        "the provider answered {words}; {}",
        counted(refusals, "refusal")
    ))
}
