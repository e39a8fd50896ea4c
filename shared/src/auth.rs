//! Who is asking: bearer tokens and what their bearers may be. Code behind it never sees a token.
//!
//! Behind the feature `auth`, because it brings the signature check, which only the api and the operator's commands
//! need.

mod jwt;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::actor::{Actor, ActorType};
use crate::ids::CustomerId;

pub use jwt::{KeyError, Refused, TOKEN_MAX, Verified, Verifier};

/// Whose tokens are honored.
#[derive(Debug, Clone, clap::Args)]
pub struct AuthArgs {
    /// PEM file with the Ed25519 public key that verifies tokens.
    #[arg(
        long,
        env = "JWT_PUBLIC_KEY_FILE",
        default_value = ".stack/keys/jwt.pub.pem"
    )]
    pub jwt_public_key_file: PathBuf,

    /// The `iss` a token must carry.
    #[arg(long, env = "JWT_ISSUER", default_value = "returns-dev")]
    pub jwt_issuer: String,

    /// The `aud` a token must carry.
    #[arg(long, env = "JWT_AUDIENCE", default_value = "returns-api")]
    pub jwt_audience: String,
}

/// Who is asking, once the token was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub user: i64,
    pub role: Role,
}

/// What a caller may be. Auditors read the audit trail and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Customer,
    Admin,
    Auditor,
}

/// The caller's role does not allow this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the role does not allow this")]
pub struct Forbidden;

impl Caller {
    /// The customer that this caller is.
    ///
    /// # Errors
    /// [`Forbidden`] for every other role.
    pub fn as_customer(&self) -> Result<CustomerId, Forbidden> {
        match self.role {
            Role::Customer => Ok(CustomerId(self.user)),
            Role::Admin | Role::Auditor => Err(Forbidden),
        }
    }

    /// # Errors
    /// [`Forbidden`] unless the caller is an admin.
    pub fn require_admin(&self) -> Result<(), Forbidden> {
        match self.role {
            Role::Admin => Ok(()),
            Role::Customer | Role::Auditor => Err(Forbidden),
        }
    }

    /// # Errors
    /// [`Forbidden`] for a role that sees no returns at all.
    pub fn require_reader(&self) -> Result<(), Forbidden> {
        match self.role {
            Role::Customer | Role::Admin => Ok(()),
            Role::Auditor => Err(Forbidden),
        }
    }

    /// Whether the caller may see what belongs to `owner`.
    pub fn may_read(&self, owner: CustomerId) -> bool {
        match self.role {
            Role::Admin => true,
            Role::Customer => owner == CustomerId(self.user),
            Role::Auditor => false,
        }
    }

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
    use super::*;

    #[test]
    fn each_role_may_do_its_own() {
        let caller = |role| Caller { user: 42, role };
        let (own, other) = (CustomerId(42), CustomerId(43));
        for (role, customer, admin, reader, reads_own, reads_other) in [
            (Role::Customer, true, false, true, true, false),
            (Role::Admin, false, true, true, true, true),
            (Role::Auditor, false, false, false, false, false),
        ] {
            let caller = caller(role);
            assert_eq!(caller.as_customer().is_ok(), customer, "{role:?}");
            assert_eq!(caller.require_admin().is_ok(), admin, "{role:?}");
            assert_eq!(caller.require_reader().is_ok(), reader, "{role:?}");
            assert_eq!(caller.may_read(own), reads_own, "{role:?}");
            assert_eq!(caller.may_read(other), reads_other, "{role:?}");
            assert!(caller.is(own) && !caller.is(other), "{role:?}");
        }
    }
}
