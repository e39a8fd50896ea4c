//! Codes of the shop that explain a filing or a decision. They are for programs, so the audit trail and events may hold them;
//! a person's own words are elsewhere.

/// The longest code: `returns.reason_code`.
const CODE_MAX: usize = 32;

/// The rule, in words.
pub const REASON_CODE: &str = "1 to 32 of a-z, 0-9 and _";

pub fn is_reason_code(code: &str) -> bool {
    (1..=CODE_MAX).contains(&code.len())
        && code
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_short_and_for_programs() {
        assert!(is_reason_code("too_small_2") && is_reason_code(&"x".repeat(32)));
        for text in ["", "Too Big", "größe", "a-b", "a\n", &"x".repeat(33)] {
            assert!(!is_reason_code(text), "{text:?}");
        }
    }
}
