//! Authentication and authorization: bearer tokens of two formats, one policy.
//!
//! [`Verifier`] checks the signature of a token, [`RevokedTokens`] knows which tokens were revoked, and [`Policy`]
//! (`policy.datalog`) decides about each request. Code outside this module never looks into a token. The feature `auth`
//! enables it, because only the api and `returnsctl` need the dependencies for signatures.

mod access;
mod biscuit;
mod decision_cache;
mod jwt;
mod key_ring;
mod policy;
mod revocation;
mod structure;
#[cfg(test)]
mod test_tokens;
mod token;
mod verifier;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use strum::{EnumIter, EnumString, IntoStaticStr};

use crate::domain::actor::{Actor, ActorType};
use crate::domain::ids::CustomerId;

pub use access::{Denied, Operation, Request};
pub use biscuit::decode as decode_biscuit;
pub use key_ring::{KeyError, KeyProblem, KeyRing, KeyUse};
pub use policy::Policy;
pub use revocation::{RevocationKind, RevokedTokens, is_token_id, jwt_revocation_id};
pub use structure::{BISCUIT_MAX, StructureError, check_structure};
pub use token::{Holder, TOKEN_MAX, TokenError, Verified};
pub use verifier::{TokenFormat, Verifier};

/// Which tokens are accepted.
#[derive(Debug, Clone, clap::Args)]
pub struct AuthArgs {
    /// JWK set (RFC 7517) with the keys that verify tokens. It is read again when it changes. A key for JWTs has `use`
    /// "sig" or none, a root key for Biscuits has `use` "biscuit"; `returnsctl token keygen --format jwt` and
    /// `--format biscuit` write them.
    #[arg(
        long,
        env = "AUTH_KEYS_FILE",
        default_value = ".stack/keys/keys.json",
        value_name = "FILE"
    )]
    pub auth_keys_file: PathBuf,

    /// Expected issuer of a token: the `iss` of a JWT, and the `issuer` of a Biscuit that names one.
    #[arg(long, env = "AUTH_ISSUER", default_value = "returns-dev", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub auth_issuer: String,

    /// Expected audience of a token: the `aud` of a JWT, the `audience` of a Biscuit.
    #[arg(long, env = "AUTH_AUDIENCE", default_value = "returns-api", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub auth_audience: String,

    /// Seconds by which the clocks of the issuer and of this machine may differ. A token is accepted for that long after
    /// it expires; too low a value refuses tokens that were just issued.
    #[arg(long, env = "AUTH_LEEWAY_SECS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=300))]
    pub auth_leeway_secs: u64,

    /// The longest token that is accepted, in bytes. Too low refuses the tokens of identity providers that list groups
    /// in them; too high makes bad tokens and the cache of good ones cost more. All headers of a request together may
    /// have 32 KiB.
    #[arg(long, env = "AUTH_TOKEN_MAX_BYTES", default_value_t = 4096, value_parser = clap::value_parser!(u16).range(1024..=16_384))]
    pub auth_token_max_bytes: u16,
}

impl AuthArgs {
    pub fn token_max(&self) -> usize {
        usize::from(self.auth_token_max_bytes)
    }
}

/// The authenticated user. The policy decides what the user may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The number that the issuer gave this user.
    pub user: i64,
    pub role: Role,
    /// The issuer, if it is another one than AUTH_ISSUER: its numbers are not those of customers.
    pub issuer: Option<Arc<str>>,
}

/// The role of a caller. Auditors read the audit trail and nothing else.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    clap::ValueEnum,
    EnumIter,
    EnumString,
    IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    Customer,
    Admin,
    Auditor,
}

impl Role {
    /// The name, as in tokens and in the policy.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Caller {
    /// Whether the caller is this customer, in any role: staff must not act on their own orders and returns. Another
    /// issuer's user of the same number is another person.
    pub fn is(&self, customer: CustomerId) -> bool {
        self.issuer.is_none() && customer == CustomerId(self.user)
    }

    /// This caller in the audit trail.
    pub fn actor(&self) -> Actor {
        let kind = match self.role {
            Role::Customer => ActorType::Customer,
            Role::Admin | Role::Auditor => ActorType::Admin,
        };
        let id = match &self.issuer {
            None => self.user.to_string(),
            // At most 64 characters, see `key_ring`.
            Some(issuer) => format!("{}@{issuer}", self.user),
        };
        Actor { kind, id }
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[test]
    fn a_caller_is_one_person_and_acts_as_customer_or_as_staff() {
        for (role, kind) in [
            (Role::Customer, ActorType::Customer),
            (Role::Admin, ActorType::Admin),
            (Role::Auditor, ActorType::Admin),
        ] {
            let caller = Caller {
                user: 42,
                role,
                issuer: None,
            };
            assert!(caller.is(CustomerId(42)) && !caller.is(CustomerId(43)));
            let id = "42".to_owned();
            assert_eq!(caller.actor(), Actor { kind, id });
            let namesake = Caller {
                issuer: Some("staff".into()),
                ..caller
            };
            assert!(!namesake.is(CustomerId(42)));
            let id = "42@staff".to_owned();
            assert_eq!(namesake.actor(), Actor { kind, id });
        }
    }

    #[test]
    fn a_role_has_one_spelling_in_both_formats() {
        for role in Role::iter() {
            assert_eq!(role.as_str().parse(), Ok(role));
            assert_eq!(serde_json::json!(role), role.as_str());
        }
        for other in ["", "Admin", "admin ", "root"] {
            assert!(other.parse::<Role>().is_err(), "{other:?}");
        }
    }
}
