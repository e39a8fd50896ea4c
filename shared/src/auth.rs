//! Who is asking, and what they may: bearer tokens of two formats, one policy. Code behind it never sees a token.
//!
//! A token is read ([`Verifier`]), looked up among those taken back ([`RevokedTokens`]), and judged by the policy for
//! each request ([`Policy`], `policy.datalog`). Behind the feature `auth`, because it brings the signature
//! checks, which only the api and the operator's commands need.

mod biscuit;
mod jwt;
mod key_ring;
mod policy;
mod revocation;
#[cfg(test)]
mod test_tokens;
mod verifier;
mod vet;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use strum::{EnumIter, EnumString, IntoStaticStr};

use crate::domain::actor::{Actor, ActorType};
use crate::domain::ids::CustomerId;

pub use biscuit::decode as decode_biscuit;
pub use key_ring::{KeyError, KeyProblem, KeyRing, KeyUse};
pub use policy::{Denied, Operation, Policy, Request};
pub use revocation::{RevocationKind, RevokedTokens, is_token_id, jwt_revocation_id};
pub use verifier::{Refused, TOKEN_MAX, TokenFormat, Verified, Verifier};
pub use vet::{BISCUIT_MAX, Unvetted, vet};

/// Whose tokens are honored.
#[derive(Debug, Clone, clap::Args)]
pub struct AuthArgs {
    /// JWK set (RFC 7517) with the keys that verify tokens, read again when it changes. Keys of JWTs have `use` "sig" or
    /// none, root keys of Biscuits have `use` "biscuit"; `returnsctl token keygen` writes both.
    #[arg(
        long,
        env = "AUTH_KEYS_FILE",
        default_value = ".stack/keys/keys.json",
        value_name = "FILE"
    )]
    pub auth_keys_file: PathBuf,

    /// Who issues the tokens: the `iss` of a JWT, and of a Biscuit that names one.
    #[arg(long, env = "AUTH_ISSUER", default_value = "returns-dev", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub auth_issuer: String,

    /// Whom the tokens are for: the `aud` of a JWT, the `audience` of a Biscuit.
    #[arg(long, env = "AUTH_AUDIENCE", default_value = "returns-api", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub auth_audience: String,

    /// Seconds by which the clocks of issuer and verifier may differ. A token lives longer by as much; too low refuses
    /// what was just issued.
    #[arg(long, env = "AUTH_LEEWAY_SECS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=300))]
    pub auth_leeway_secs: u64,
}

/// Who is asking. What they may is the policy's to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub user: i64,
    pub role: Role,
}

/// What a caller may be. Auditors read the audit trail and nothing else.
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
    /// Whether the caller is this customer, whatever the role: nobody acts as staff on what is their own.
    pub fn is(&self, customer: CustomerId) -> bool {
        customer == CustomerId(self.user)
    }

    /// This caller in the audit trail.
    pub fn actor(&self) -> Actor {
        let kind = match self.role {
            Role::Customer => ActorType::Customer,
            Role::Admin | Role::Auditor => ActorType::Admin,
        };
        Actor {
            kind,
            id: self.user.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[test]
    fn a_caller_is_one_person_and_acts_as_staff_or_as_a_customer() {
        for (role, kind) in [
            (Role::Customer, ActorType::Customer),
            (Role::Admin, ActorType::Admin),
            (Role::Auditor, ActorType::Admin),
        ] {
            let caller = Caller { user: 42, role };
            assert!(caller.is(CustomerId(42)) && !caller.is(CustomerId(43)));
            let id = "42".to_owned();
            assert_eq!(caller.actor(), Actor { kind, id });
        }
    }

    #[test]
    fn a_role_is_spelt_the_same_in_both_formats_and_in_one_way() {
        for role in Role::iter() {
            assert_eq!(role.as_str().parse(), Ok(role));
            assert_eq!(serde_json::json!(role), role.as_str());
        }
        for other in ["", "Admin", "admin ", "root"] {
            assert!(other.parse::<Role>().is_err(), "{other:?}");
        }
    }
}
