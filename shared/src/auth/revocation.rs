//! Tokens that are revoked before they expire.

use std::collections::HashSet;
use std::fmt;

use sha2::{Digest, Sha256};
use sqlx::{MySqlConnection, Row};
use strum::{EnumString, IntoStaticStr};

use super::token::Verified;
use crate::domain::row::decode_enum;

/// The longest id that `revoked_tokens.token` holds.
pub(super) const TOKEN_ID_MAX: usize = 128;

/// The id by which `revoked_tokens` names a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum RevocationKind {
    /// `jti` or `token_id`: the token, and everything derived from it.
    TokenId,
    /// One block of a Biscuit and everything derived from there, or one JWT, see [`jwt_revocation_id`].
    RevocationId,
}

/// A snapshot of the table `revoked_tokens`.
#[derive(Default)]
pub struct RevokedTokens {
    token_ids: HashSet<String>,
    revocation_ids: HashSet<String>,
}

impl fmt::Debug for RevokedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevokedTokens")
            .field("count", &self.count())
            .finish_non_exhaustive()
    }
}

impl RevocationKind {
    /// The name, as in the column `kind`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl RevokedTokens {
    /// Reads all tokens that are revoked and have not expired, about 200 bytes each.
    ///
    /// # Errors
    /// A database error, or a row that this version cannot read.
    pub async fn read(conn: &mut MySqlConnection) -> sqlx::Result<Self> {
        let rows = sqlx::query(
            "/* read_revoked_tokens */ SELECT kind, token FROM revoked_tokens WHERE expires_at IS NULL OR expires_at > UTC_TIMESTAMP(6)",
        )
        .fetch_all(conn)
        .await?;
        let mut revoked = Self::default();
        for row in &rows {
            // An unknown kind comes from a later version. It is an error: skipping it would let the token in.
            revoked.insert(decode_enum(row, "kind")?, row.try_get("token")?);
        }
        Ok(revoked)
    }

    /// Whether this token, or one that it was derived from, is revoked.
    pub fn contains(&self, token: &Verified) -> bool {
        let mut revocation_ids = token.claims.revocation_ids.iter();
        token
            .token_id()
            .is_some_and(|id| self.token_ids.contains(id))
            || revocation_ids.any(|id| self.revocation_ids.contains(id))
    }

    pub fn count(&self) -> usize {
        self.token_ids.len() + self.revocation_ids.len()
    }

    fn insert(&mut self, kind: RevocationKind, token: String) {
        match kind {
            RevocationKind::TokenId => self.token_ids.insert(token),
            RevocationKind::RevocationId => self.revocation_ids.insert(token),
        };
    }
}

/// Whether this id fits `revoked_tokens`. A token with any other id can be revoked by its revocation id only.
pub fn is_token_id(id: &str) -> bool {
    (1..=TOKEN_ID_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Names this JWT and no other: SHA-256 over the signed part, in hexadecimal digits. The signature is left out, because
/// an ES256 signature can be written in two ways.
pub fn jwt_revocation_id(token: &str) -> String {
    let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
    hex::encode(Sha256::digest(signed))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::test_tokens::{JwtIssuer, Root, append, issuer_facts, text, verifier};
    use super::*;

    fn revoked(kind: RevocationKind, token: &str) -> RevokedTokens {
        let mut revoked = RevokedTokens::default();
        revoked.insert(kind, token.to_owned());
        revoked
    }

    #[test]
    fn a_token_is_revoked_by_its_id_in_both_formats() {
        let (shop, root) = (JwtIssuer::eddsa("ed", 7), Root::new(1, 1));
        let verifier = verifier(&[shop.jwk(), root.jwk()]);
        let narrowed = append(
            &root.biscuit(&issuer_facts(&[])),
            r#"check if access("read");"#,
        );
        let unnamed_jwt = shop.token(&json!({"jti": null}));
        let unnamed = text(&root.biscuit(&issuer_facts(&[("token_id", "")])));
        for (token, named) in [
            (shop.token(&json!({})), true),
            (text(&root.biscuit(&issuer_facts(&[]))), true),
            (text(&narrowed), true),
            (unnamed_jwt, false),
            (unnamed, false),
        ] {
            let token = verifier.verify(&token).expect("good");
            assert_eq!(
                revoked(RevocationKind::TokenId, "t-1").contains(&token),
                named
            );
            assert!(!revoked(RevocationKind::TokenId, "t-2").contains(&token));
            assert!(!revoked(RevocationKind::TokenId, "").contains(&token));
            assert!(
                !revoked(RevocationKind::RevocationId, "t-1").contains(&token),
                "the id of another kind"
            );
            assert!(!RevokedTokens::default().contains(&token));
        }
    }

    #[test]
    fn a_jwt_without_an_id_is_revoked_by_its_digest() {
        let shop = JwtIssuer::eddsa("ed", 7);
        let verifier = verifier(&[shop.jwk()]);
        let (one, other) = (
            shop.token(&json!({"jti": null})),
            shop.token(&json!({"jti": 5})),
        );
        let revoked = revoked(RevocationKind::RevocationId, &jwt_revocation_id(&one));
        assert!(revoked.contains(&verifier.verify(&one).expect("good")));
        assert!(!revoked.contains(&verifier.verify(&other).expect("good")));
    }

    /// Everything derived from the block is revoked, and nothing that the block was derived from.
    #[test]
    fn a_biscuit_is_revoked_from_any_of_its_blocks_on() {
        let root = Root::new(1, 1);
        let verifier = verifier(&[root.jwk()]);
        let whole = root.biscuit(&issuer_facts(&[("token_id", "")]));
        let child = append(&whole, r#"check if access("read");"#);
        let sibling = append(&whole, r#"check if access("read");"#);
        let grandchild = append(&child, r#"check if resource("return", 5);"#)
            .seal()
            .expect("seals");
        let ids = grandchild.revocation_identifiers();
        let tokens = [&whole, &child, &sibling, &grandchild].map(text);
        for (block, expected) in [
            (0, [true, true, true, true]),
            (1, [false, true, false, true]),
            (2, [false, false, false, true]),
        ] {
            let id = hex::encode(&ids[block]);
            let revoked = revoked(RevocationKind::RevocationId, &id);
            let found = tokens
                .each_ref()
                .map(|token| revoked.contains(&verifier.verify(token).expect("good")));
            assert_eq!(found, expected, "block {block}");
        }
    }

    #[test]
    fn both_kinds_are_counted_and_have_the_names_of_the_table() {
        let mut revoked = revoked(RevocationKind::TokenId, "t-1");
        revoked.insert(RevocationKind::RevocationId, "t-1".to_owned());
        assert_eq!(revoked.count(), 2);
        assert!(!format!("{revoked:?}").contains("t-1"));
        let kinds = [RevocationKind::TokenId, RevocationKind::RevocationId];
        let names = kinds.map(RevocationKind::as_str);
        assert_eq!(names, ["token_id", "revocation_id"]);
    }
}
