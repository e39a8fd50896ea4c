//! Tokens that are taken back before they end.

use std::collections::HashSet;

use sqlx::{MySqlConnection, Row};
use strum::{EnumString, IntoStaticStr};

use super::verifier::Verified;
use crate::domain::row::decode_enum;

pub use super::jwt::{is_token_id, jwt_revocation_id};

/// By what a token is named in `revoked_tokens`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum RevocationKind {
    /// `jti` or `token_id`: the token, and all that was made from it.
    TokenId,
    /// A Biscuit's block and all that was made from there; or one JWT, see [`jwt_revocation_id`].
    RevocationId,
}

/// A reading of the table `revoked_tokens`.
#[derive(Default)]
pub struct RevokedTokens {
    token_ids: HashSet<String>,
    revocation_ids: HashSet<String>,
}

impl std::fmt::Debug for RevokedTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
    /// All that are taken back and would not have ended by themselves; about 200 bytes each.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn read(conn: &mut MySqlConnection) -> sqlx::Result<Self> {
        let rows = sqlx::query(
            "/* read_revoked_tokens */ SELECT kind, token FROM revoked_tokens WHERE expires_at IS NULL OR expires_at > UTC_TIMESTAMP(6)",
        )
        .fetch_all(conn)
        .await?;
        let mut revoked = Self::default();
        for row in &rows {
            // An unknown kind comes from a later version. It is an error, because skipping it would let the token in.
            let kind = decode_enum(row, "kind")?;
            revoked.set_mut(kind).insert(row.try_get("token")?);
        }
        Ok(revoked)
    }

    /// Whether this token, or one that it was made from, is taken back.
    pub fn contains(&self, token: &Verified) -> bool {
        token
            .names()
            .any(|(kind, name)| self.set(kind).contains(name))
    }

    pub fn count(&self) -> usize {
        self.token_ids.len() + self.revocation_ids.len()
    }

    fn set(&self, kind: RevocationKind) -> &HashSet<String> {
        match kind {
            RevocationKind::TokenId => &self.token_ids,
            RevocationKind::RevocationId => &self.revocation_ids,
        }
    }

    fn set_mut(&mut self, kind: RevocationKind) -> &mut HashSet<String> {
        match kind {
            RevocationKind::TokenId => &mut self.token_ids,
            RevocationKind::RevocationId => &mut self.revocation_ids,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::test_tokens::{JwtIssuer, Root, append, said, text, verifier};
    use super::*;

    fn revoked(kind: RevocationKind, token: &str) -> RevokedTokens {
        let mut revoked = RevokedTokens::default();
        revoked.set_mut(kind).insert(token.to_owned());
        revoked
    }

    #[test]
    fn a_token_is_taken_back_by_its_id_in_both_formats() {
        let (shop, root) = (JwtIssuer::eddsa("ed", 7), Root::new(1, 1));
        let verifier = verifier(&[shop.jwk(), root.jwk()]);
        let narrowed = append(&root.biscuit(&said(&[])), r#"check if access("read");"#);
        let unnamed_jwt = shop.token(&json!({"jti": null}));
        let unnamed = text(&root.biscuit(&said(&[("token_id", "")])));
        for (token, named) in [
            (shop.token(&json!({})), true),
            (text(&root.biscuit(&said(&[]))), true),
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
                "of its kind"
            );
            assert!(!RevokedTokens::default().contains(&token));
        }
    }

    #[test]
    fn a_jwt_without_an_id_is_taken_back_by_its_digest() {
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

    /// With all that was made from there, and nothing that it was made from.
    #[test]
    fn a_biscuit_is_taken_back_from_any_of_its_blocks_on() {
        let root = Root::new(1, 1);
        let verifier = verifier(&[root.jwk()]);
        let whole = root.biscuit(&said(&[("token_id", "")]));
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
    fn both_kinds_are_counted_and_named_as_in_the_table() {
        let mut revoked = revoked(RevocationKind::TokenId, "t-1");
        revoked
            .set_mut(RevocationKind::RevocationId)
            .insert("t-1".to_owned());
        assert_eq!(revoked.count(), 2);
        assert!(!format!("{revoked:?}").contains("t-1"));
        let kinds = [RevocationKind::TokenId, RevocationKind::RevocationId];
        let names = kinds.map(RevocationKind::as_str);
        assert_eq!(names, ["token_id", "revocation_id"]);
    }
}
