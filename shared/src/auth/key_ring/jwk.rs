//! One key of a JWK set (RFC 7517), checked when the file is read and not when a token comes.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use biscuit_auth::PublicKey;
use biscuit_auth::builder::{Algorithm as RootAlgorithm, Fact, Term, fact};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use strum::IntoEnumIterator;

use super::super::Role;
use super::{JwtKey, KeyUse, RootKey, Signer};

/// RFC 7518, 3.2: as long as the hash.
const SECRET_MIN: usize = 32;
/// The minimum of RFC 7518, 3.3; jsonwebtoken verifies nothing with a longer RSA key than the maximum.
const RSA_BITS: RangeInclusive<usize> = 2048..=4096;

const UNUSABLE: &str = "the key is not usable";
const BISCUIT_KID: &str = "the kid of a Biscuit's root key must be a number from 0 to 4294967295";
const BISCUIT_KEY: &str = "a Biscuit's root key must be an Ed25519 key (kty OKP)";

/// A key of the set.
pub(super) enum ParsedKey {
    Jwt(JwtKey),
    /// With its number, which is the `kid`.
    Biscuit(u32, RootKey),
    /// A use or an algorithm that we do not need.
    Unsupported {
        is_secret: bool,
    },
}

/// Reads one key. The error says what is wrong and repeats nothing of the key.
pub(super) fn parse(key: Value) -> Result<ParsedKey, &'static str> {
    if key.get("d").is_some() {
        return Err("it holds the private half; only public keys may be in this file");
    }
    let issuer = issuer(key.get("issuer"))?;
    let roles = roles(key.get("roles"), issuer.is_some())?;
    let jwk: Jwk = serde_json::from_value(key).map_err(|_| "it is not a JWK")?;
    let Some(key_use) = key_use(&jwk) else {
        return Ok(ParsedKey::Unsupported { is_secret: false });
    };
    let kid = jwk.common.key_id.clone().filter(|kid| !kid.is_empty());
    let signer = Signer {
        kid: kid.ok_or("it has no kid")?,
        thumbprint: thumbprint(&jwk),
        roles,
        issuer,
    };
    match key_use {
        KeyUse::Jwt => {
            let is_secret = matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_));
            let unsupported = ParsedKey::Unsupported { is_secret };
            Ok(jwt_key(&jwk, signer)?.map_or(unsupported, ParsedKey::Jwt))
        }
        KeyUse::Biscuit => {
            let number = root_number(&signer.kid).ok_or(BISCUIT_KID)?;
            Ok(ParsedKey::Biscuit(number, root_key(&jwk, signer)?))
        }
    }
}

/// `None` for a use that we do not need.
fn key_use(jwk: &Jwk) -> Option<KeyUse> {
    match &jwk.common.public_key_use {
        None | Some(PublicKeyUse::Signature) => Some(KeyUse::Jwt),
        Some(PublicKeyUse::Other(other)) if other == KeyUse::Biscuit.as_str() => {
            Some(KeyUse::Biscuit)
        }
        Some(PublicKeyUse::Encryption | PublicKeyUse::Other(_)) => None,
    }
}

/// `None` for a kind of key that we do not support.
fn jwt_key(jwk: &Jwk, signer: Signer) -> Result<Option<JwtKey>, &'static str> {
    let Some(algorithm) = algorithm(jwk)? else {
        return Ok(None);
    };
    let named = jwk.common.key_algorithm;
    if named.is_some_and(|named| Algorithm::try_from(named).ok() != Some(algorithm)) {
        return Ok(None);
    }
    let key = DecodingKey::from_jwk(jwk).map_err(|_| UNUSABLE)?;
    // There is no signature here. The call checks that the key is a point of its curve, now and not when a token comes.
    jsonwebtoken::crypto::verify("", b"", &key, algorithm).map_err(|_| UNUSABLE)?;
    Ok(Some(JwtKey {
        key,
        algorithm,
        signer,
    }))
}

/// The algorithm comes from the key, never from the token: each kind of key has one.
fn algorithm(jwk: &Jwk) -> Result<Option<Algorithm>, &'static str> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            // With a key that is too short, jsonwebtoken would panic when a token comes.
            ed25519(&pair.x).ok_or(UNUSABLE)?;
            Algorithm::EdDSA
        }
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::RSA(rsa) => {
            if !RSA_BITS.contains(&bits(&rsa.n)?) {
                return Err("the RSA key has less than 2048 or more than 4096 bits");
            }
            Algorithm::RS256
        }
        AlgorithmParameters::OctetKey(secret) => {
            let secret = BASE64_URL_SAFE_NO_PAD.decode(&secret.value);
            if secret.map_err(|_| "k is not base64url")?.len() < SECRET_MIN {
                return Err("the secret has less than 32 bytes");
            }
            Algorithm::HS256
        }
        _ => return Ok(None),
    };
    Ok(Some(algorithm))
}

/// The canonical text of a number only: no two texts may name one key.
fn root_number(kid: &str) -> Option<u32> {
    kid.parse()
        .ok()
        .filter(|number: &u32| number.to_string() == kid)
}

/// Ed25519 only: the holder of a token signed with P-256 could change its signature, and so its revocation id.
fn root_key(jwk: &Jwk, signer: Signer) -> Result<RootKey, &'static str> {
    let public = match &jwk.algorithm {
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            ed25519(&pair.x)
        }
        _ => None,
    };
    let public = public.ok_or(BISCUIT_KEY)?;
    Ok(RootKey { public, signer })
}

fn ed25519(x: &str) -> Option<PublicKey> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(x).ok()?;
    PublicKey::from_bytes(&bytes, RootAlgorithm::Ed25519).ok()
}

fn thumbprint(jwk: &Jwk) -> Option<String> {
    match &jwk.algorithm {
        AlgorithmParameters::OctetKey(_) => None,
        _ => jwk.thumbprint(ThumbprintHash::SHA256).ok(),
    }
}

/// The longest `issuer` of a key: with a user's number and an `@` it fits into `return_events.actor_id`.
const ISSUER_MAX: usize = 44;

/// The issuer of a key whose tokens do not name AUTH_ISSUER.
fn issuer(named: Option<&Value>) -> Result<Option<Arc<str>>, &'static str> {
    const NO_ISSUER: &str = "issuer is not a text of 1 to 44 visible ASCII characters";
    let Some(named) = named else {
        return Ok(None);
    };
    let fits = |text: &&str| {
        (1..=ISSUER_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let text = named.as_str().filter(fits).ok_or(NO_ISSUER)?;
    Ok(Some(text.into()))
}

/// All roles, unless the key names some. Only AUTH_ISSUER numbers customers: another issuer's user 42 must not see the
/// orders of customer 42.
fn roles(named: Option<&Value>, of_other_issuer: bool) -> Result<Fact, &'static str> {
    const NO_ROLES: &str = "roles is not a list of customer, admin, auditor";
    const NO_CUSTOMERS: &str = "a key with an issuer of its own cannot vouch for customers";
    let roles: Vec<Role> = match named {
        None => Role::iter()
            .filter(|role| *role != Role::Customer || !of_other_issuer)
            .collect(),
        Some(named) => serde_json::from_value(named.clone()).map_err(|_| NO_ROLES)?,
    };
    if of_other_issuer && roles.contains(&Role::Customer) {
        return Err(NO_CUSTOMERS);
    }
    let terms: BTreeSet<Term> = roles.iter().map(|role| Term::from(role.as_str())).collect();
    Ok(fact("key_roles", &[Term::Set(terms)]))
}

/// The bits of a big-endian number, without leading zeros.
fn bits(base64url: &str) -> Result<usize, &'static str> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(base64url);
    let bytes = bytes.map_err(|_| "n is not base64url")?;
    let leading = bytes.iter().position(|byte| *byte != 0);
    let Some(leading) = leading else { return Ok(0) };
    let first = usize::try_from(bytes[leading].leading_zeros()).unwrap_or(0);
    Ok((bytes.len() - leading) * 8 - first)
}
