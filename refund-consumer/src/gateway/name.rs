//! The name of an account at a payment provider, as stored in `refunds.gateway`.

use std::fmt;
use std::sync::Arc;

/// One account at one provider. Two accounts do not know each other's idempotency keys, even behind one URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayName(Arc<str>);

/// The size of `refunds.gateway`.
const MAX: usize = 32;

impl GatewayName {
    /// That of the simulated gateway.
    pub const SIMULATED: &'static str = "simulated";

    pub fn simulated() -> Self {
        Self(Self::SIMULATED.into())
    }

    /// # Errors
    /// The text is too long, or has other characters.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        let begins = text.starts_with(|first: char| first.is_ascii_lowercase());
        if begins && text.len() <= MAX && text.bytes().all(plain) {
            Ok(Self(text.into()))
        } else {
            Err("expected 1 to 32 of a-z 0-9 . _ - that begin with a letter".to_owned())
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GatewayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_its_column_and_is_plain() {
        for good in ["a", "http", "adyen.live-eu_2", &"x".repeat(MAX)] {
            assert!(GatewayName::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "2",
            "-a",
            "Adyen",
            "a b",
            "\u{e4}",
            &"x".repeat(MAX + 1),
        ] {
            assert!(GatewayName::parse(bad).is_err(), "{bad}");
        }
    }
}
