//! Verifies a token, in either format.

use super::decision_cache::DecisionCache;
use super::key_ring::{KeyError, KeyProblem, KeyRing, KeyUse};
use super::token::{TokenError, Verified};
use super::{AuthArgs, biscuit, jwt};

/// Verifies tokens with the keys that the key file held when it was read.
#[derive(Debug)]
pub struct Verifier {
    ring: KeyRing,
    args: AuthArgs,
}

/// The format of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFormat {
    Jwt,
    Biscuit,
}

impl Verifier {
    /// # Errors
    /// The key file cannot be read or used; the message says why.
    pub fn load(args: &AuthArgs) -> Result<Self, KeyError> {
        let ring = KeyRing::load(&args.auth_keys_file)?;
        if let Some(kid) = ring.kid_of_issuer(&args.auth_issuer) {
            return Err(KeyError {
                path: args.auth_keys_file.clone(),
                problem: KeyProblem::OurIssuer(kid.to_owned()),
            });
        }
        Ok(Self {
            ring,
            args: args.clone(),
        })
    }

    pub fn keys(&self) -> &KeyRing {
        &self.ring
    }

    /// # Errors
    /// Which check failed.
    pub fn verify(&self, token: &str) -> Result<Verified, TokenError> {
        if token.len() > self.args.token_max() {
            return Err(TokenError::Length);
        }
        let (biscuit, signer, claims) = match TokenFormat::of(token) {
            TokenFormat::Jwt => {
                let now = jsonwebtoken::get_current_timestamp();
                let (key, claims) = jwt::verify(token, &self.ring, &self.args, now)?;
                (None, &key.signer, claims)
            }
            TokenFormat::Biscuit => {
                let (biscuit, key, claims) = biscuit::verify(token, &self.ring)?;
                (Some(biscuit), &key.signer, claims)
            }
        };
        Ok(Verified {
            claims,
            signer: signer.clone(),
            biscuit,
            decisions: DecisionCache::default(),
        })
    }

    /// Whether the key that verified the token, maybe from an earlier version of the file, is still in the file. `false`
    /// also if this cannot be known: then the token must be verified again.
    pub fn still_trusts(&self, token: &Verified) -> bool {
        let key_use = match token.biscuit {
            None => KeyUse::Jwt,
            Some(_) => KeyUse::Biscuit,
        };
        self.ring.holds(key_use, &token.signer)
    }
}

impl TokenFormat {
    /// base64url has no dot, so this is exact: no token is tried as both.
    pub fn of(token: &str) -> Self {
        if token.contains('.') {
            Self::Jwt
        } else {
            Self::Biscuit
        }
    }
}

#[cfg(test)]
mod tests;
