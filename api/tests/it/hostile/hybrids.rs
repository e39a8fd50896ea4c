//! Text that is no token, or half of one format and half of the other.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};

use super::{Attack, Attacker, named};

impl Attacker<'_> {
    pub(super) fn hybrids(&self) -> Vec<Attack> {
        let (jwt, biscuit) = (&self.jwt, &self.biscuit);
        let [header, payload, signature] =
            [0, 1, 2].map(|n| jwt.split('.').nth(n).expect("three parts"));
        vec![
            named("two parts", format!("{header}.{payload}"), "malformed"),
            named("four parts", format!("{jwt}.{signature}"), "malformed"),
            named(
                "five parts, as if encrypted",
                format!("{header}.{payload}.{payload}.{payload}.{signature}"),
                "malformed",
            ),
            named("dots", "..", "malformed"),
            named("a dot", ".", "malformed"),
            named("many dots", ".".repeat(4096), "malformed"),
            named(
                "a space inside",
                format!("{header}.{payload}. {signature}"),
                "malformed",
            ),
            named(
                "padding inside",
                format!("{header}=.{payload}.{signature}"),
                "malformed",
            ),
            named(
                "a Biscuit as header",
                format!("{biscuit}.{payload}.{signature}"),
                "malformed",
            ),
            named(
                "a Biscuit as payload",
                format!("{header}.{biscuit}.{signature}"),
                "signature",
            ),
            named(
                "a Biscuit as signature",
                format!("{header}.{payload}.{biscuit}"),
                "malformed",
            ),
            named(
                "a Biscuit, then a JWT",
                format!("{biscuit}.{jwt}"),
                "malformed",
            ),
            named(
                "a JWT, then a Biscuit",
                format!("{jwt}.{biscuit}"),
                "malformed",
            ),
            named("a Biscuit and a dot", format!("{biscuit}."), "malformed"),
            named("a JWT without its dots", jwt.replace('.', ""), "malformed"),
            named(
                "a Biscuit in three parts",
                format!(
                    "{}.{}.{}",
                    &biscuit[..100],
                    &biscuit[100..200],
                    &biscuit[200..]
                ),
                "malformed",
            ),
            named(
                "two Biscuits",
                biscuit.trim_end_matches('=').repeat(2),
                "malformed",
            ),
            named(
                "standard base64",
                BASE64_STANDARD.encode([0xfb, 0xff, 0xfe]),
                "malformed",
            ),
            named("4097 characters", "A".repeat(4097), "malformed"),
            named(
                "3073 bytes",
                BASE64_URL_SAFE.encode([10; 3073]),
                "malformed",
            ),
            named("zeros", "A".repeat(4096), "malformed"),
            named("hello", "hello", "malformed"),
            named("no ASCII", "é".repeat(100), "malformed"),
        ]
    }
}
