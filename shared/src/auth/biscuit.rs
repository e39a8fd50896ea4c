//! Biscuits: an Ed25519 root key by its number, every block's signature, and what the issuer's block says.

use std::time::Duration;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurposeConfig;
use base64::engine::general_purpose::GeneralPurpose;
use biscuit_auth::builder::{Fact, Term};
use biscuit_auth::datalog::RunLimits;
use biscuit_auth::error::Token as BiscuitError;
use biscuit_auth::{Authorizer, AuthorizerBuilder, Biscuit, UnverifiedBiscuit};

use super::jwt::is_token_id;
use super::key_ring::{KeyRing, RootKey};
use super::verifier::{Claims, Refused};
use super::{BISCUIT_MAX, Caller, Role, Unvetted, vet};

/// The engine's own default of 1 ms is wall-clock time: with 64 callers on two cores it refused one good token in a
/// hundred. What bounds the work is [`vet`].
pub(super) const LIMITS: RunLimits = RunLimits {
    max_facts: 300,
    max_iterations: 20,
    max_time: Duration::from_secs(1),
};

/// The URL-safe alphabet, with padding as this library writes it, or without as others do; nothing else.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The bytes of a Biscuit's text, vetted.
///
/// # Errors
/// It is no base64, or may not be looked at.
pub fn decode(token: &str) -> Result<Vec<u8>, Unvetted> {
    if token.len() > BISCUIT_MAX.div_ceil(3) * 4 {
        return Err(Unvetted::TooLong);
    }
    let raw = BASE64.decode(token).map_err(|_| Unvetted::Malformed)?;
    vet(&raw)?;
    Ok(raw)
}

/// A Biscuit whose signatures are good, the key that says so, and what its issuer says.
pub(super) fn verify<'r>(
    token: &str,
    ring: &'r KeyRing,
) -> Result<(Biscuit, &'r RootKey, Claims), Refused> {
    let raw = decode(token)?;
    let unverified = UnverifiedBiscuit::from(&raw).map_err(biscuit_error)?;
    let key = ring.biscuit(unverified.root_key_id())?;
    let token = unverified
        .verify(key.public)
        .map_err(|error| biscuit_error(error.into()))?;
    // Fields that nobody knows would make a second spelling of the same token.
    if token.to_vec().map_err(biscuit_error)? != raw {
        return Err(Refused::SecondSpelling);
    }
    let said = Said::read(&token)?;
    let revocation_ids = token.revocation_identifiers();
    let claims = Claims {
        caller: said.caller()?,
        issued_at: said.date("issued_at")?,
        expires_at: said.date("expires_at")?,
        token_id: said.text("token_id").filter(|id| is_token_id(id)),
        revocation_ids: revocation_ids.iter().map(hex::encode).collect(),
    };
    Ok((token, key, claims))
}

/// All that an issuer may say. What else the policy knows, the server says: an issuer that could state `key_roles` would
/// vouch for any role, one that could state `owner` would give away what is somebody else's.
const SAYINGS: [&str; 7] = [
    "user",
    "role",
    "audience",
    "issuer",
    "issued_at",
    "expires_at",
    "token_id",
];

/// The facts of the issuer's block: whatever a holder has appended is not among them.
struct Said(Vec<Fact>);

impl Said {
    fn read(token: &Biscuit) -> Result<Self, Refused> {
        let mut authorizer = AuthorizerBuilder::new()
            .set_limits(LIMITS)
            .build(token)
            .map_err(biscuit_error)?;
        let mut facts = Vec::new();
        for name in SAYINGS {
            facts.extend(one(&mut authorizer, name)?);
        }
        // Of a token that was vetted, only the issuer's block holds facts, and nothing derives more.
        if facts.len() != authorizer.fact_count() {
            return Err(Refused::Saying);
        }
        Ok(Self(facts))
    }

    fn term(&self, name: &str) -> Option<&Term> {
        let fact = self.0.iter().find(|fact| fact.predicate.name == name)?;
        fact.predicate.terms.first()
    }

    fn caller(&self) -> Result<Caller, Refused> {
        let role = match self.term("role") {
            Some(Term::Str(role)) => role.parse::<Role>().ok(),
            _ => None,
        };
        match (self.term("user"), role) {
            (Some(Term::Integer(user)), Some(role)) if *user > 0 => {
                Ok(Caller { user: *user, role })
            }
            _ => Err(Refused::User),
        }
    }

    fn date(&self, name: &str) -> Result<u64, Refused> {
        match self.term(name) {
            Some(Term::Date(at)) => Ok(*at),
            _ => Err(Refused::Time),
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        match self.term(name) {
            Some(Term::Str(text)) => Some(text.clone()),
            _ => None,
        }
    }
}

/// The one fact of this name, if there is one. `query` asks the issuer's block only; `query_all` would also tell what
/// holders have made up.
fn one(authorizer: &mut Authorizer, name: &'static str) -> Result<Option<Fact>, Refused> {
    let rule = format!("{name}($x) <- {name}($x)");
    let mut facts: Vec<Fact> = authorizer.query(rule.as_str()).map_err(biscuit_error)?;
    match facts.len() {
        0 | 1 => Ok(facts.pop()),
        _ => Err(Refused::Twice(name)),
    }
}

/// A limit that was met is no fault of the token's: it is asked again.
fn biscuit_error(error: BiscuitError) -> Refused {
    match error {
        BiscuitError::RunLimit(biscuit_auth::error::RunLimit::Timeout) => Refused::Undecided,
        other => Refused::Biscuit(other),
    }
}

#[cfg(test)]
mod tests;
