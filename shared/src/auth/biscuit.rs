//! Biscuits: the root key by its number, the signature of every block, and the facts of the issuer's block.

use std::time::Duration;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurposeConfig;
use base64::engine::general_purpose::GeneralPurpose;
use biscuit_auth::builder::{Fact, Term};
use biscuit_auth::datalog::RunLimits;
use biscuit_auth::error::Token as BiscuitError;
use biscuit_auth::{Authorizer, AuthorizerBuilder, Biscuit, UnverifiedBiscuit};

use super::key_ring::{KeyRing, RootKey, Signer};
use super::revocation::is_token_id;
use super::structure::{BISCUIT_MAX, StructureError, check_structure};
use super::token::{Claims, TokenError};
use super::{Caller, Role};

/// The engine's default of 1 ms is wall-clock time: with 64 callers on two cores it refused one good token in a
/// hundred. [`check_structure`] bounds the work instead.
pub(super) const LIMITS: RunLimits = RunLimits {
    max_facts: 300,
    max_iterations: 20,
    max_time: Duration::from_secs(1),
};

/// The URL-safe alphabet, with padding as this library writes it, or without as others do.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The bytes of a Biscuit's text, after the check of its structure.
///
/// # Errors
/// It is not base64url, or [`check_structure`] refuses it.
pub fn decode(token: &str) -> Result<Vec<u8>, StructureError> {
    if token.len() > BISCUIT_MAX.div_ceil(3) * 4 {
        return Err(StructureError::TooLong);
    }
    let raw = BASE64
        .decode(token)
        .map_err(|_| StructureError::Malformed)?;
    check_structure(&raw)?;
    Ok(raw)
}

/// A Biscuit with good signatures, the key that verified it, and the claims of its issuer.
pub(super) fn verify<'r>(
    token: &str,
    ring: &'r KeyRing,
) -> Result<(Biscuit, &'r RootKey, Claims), TokenError> {
    let raw = decode(token)?;
    let unverified = UnverifiedBiscuit::from(&raw).map_err(biscuit_error)?;
    let key = ring.biscuit(unverified.root_key_id());
    let key = key.ok_or(TokenError::UnknownKey)?;
    let token = unverified
        .verify(key.public)
        .map_err(|error| biscuit_error(error.into()))?;
    // Unknown fields would be a second encoding of the same token.
    if token.to_vec().map_err(biscuit_error)? != raw {
        return Err(TokenError::NotCanonical);
    }
    let facts = IssuerFacts::read(&token)?;
    let revocation_ids = token.revocation_identifiers();
    let claims = Claims {
        caller: facts.caller(&key.signer)?,
        issued_at: facts.date("issued_at")?,
        expires_at: facts.date("expires_at")?,
        token_id: facts.text("token_id").filter(|id| is_token_id(id)),
        revocation_ids: revocation_ids.iter().map(hex::encode).collect(),
    };
    Ok((token, key, claims))
}

/// The facts that an issuer may state. All other facts come from the server: an issuer that could state `key_roles` could
/// sign for any role, and one that could state `owner` could give away another customer's return.
const ISSUER_FACTS: [&str; 7] = [
    "user",
    "role",
    "audience",
    "issuer",
    "issued_at",
    "expires_at",
    "token_id",
];

/// The facts of the issuer's block, without those of appended blocks.
struct IssuerFacts(Vec<Fact>);

impl IssuerFacts {
    fn read(token: &Biscuit) -> Result<Self, TokenError> {
        let mut authorizer = AuthorizerBuilder::new()
            .set_limits(LIMITS)
            .build(token)
            .map_err(biscuit_error)?;
        let mut facts = Vec::new();
        for name in ISSUER_FACTS {
            facts.extend(one(&mut authorizer, name)?);
        }
        // After `check_structure` only the issuer's block holds facts, and no rule derives more.
        if facts.len() != authorizer.fact_count() {
            return Err(TokenError::UnexpectedFact);
        }
        Ok(Self(facts))
    }

    fn term(&self, name: &str) -> Option<&Term> {
        let fact = self.0.iter().find(|fact| fact.predicate.name == name)?;
        fact.predicate.terms.first()
    }

    fn caller(&self, signer: &Signer) -> Result<Caller, TokenError> {
        let role = match self.term("role") {
            Some(Term::Str(role)) => role.parse::<Role>().ok(),
            _ => None,
        };
        match (self.term("user"), role) {
            (Some(Term::Integer(user)), Some(role)) if *user > 0 => Ok(Caller {
                user: *user,
                role,
                issuer: signer.issuer.clone(),
            }),
            _ => Err(TokenError::User),
        }
    }

    fn date(&self, name: &str) -> Result<u64, TokenError> {
        match self.term(name) {
            Some(Term::Date(at)) => Ok(*at),
            _ => Err(TokenError::Time),
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        match self.term(name) {
            Some(Term::Str(text)) => Some(text.clone()),
            _ => None,
        }
    }
}

/// The one fact of this name, if there is one. `query` reads the issuer's block only; `query_all` would also return the
/// facts of holders.
fn one(authorizer: &mut Authorizer, name: &'static str) -> Result<Option<Fact>, TokenError> {
    let rule = format!("{name}($x) <- {name}($x)");
    let mut facts: Vec<Fact> = authorizer.query(rule.as_str()).map_err(biscuit_error)?;
    match facts.len() {
        0 | 1 => Ok(facts.pop()),
        _ => Err(TokenError::Repeated(name)),
    }
}

/// A timeout is not the fault of the token: the client may retry.
fn biscuit_error(error: BiscuitError) -> TokenError {
    match error {
        BiscuitError::RunLimit(biscuit_auth::error::RunLimit::Timeout) => TokenError::Undecided,
        other => TokenError::Biscuit(other),
    }
}

#[cfg(test)]
mod tests;
