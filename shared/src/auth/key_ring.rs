//! The keys that verify tokens, from one JWK set. Each is pinned to one format and one algorithm.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use biscuit_auth::PublicKey;
use biscuit_auth::builder::{Algorithm as RootAlgorithm, Fact, Term, fact};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use strum::IntoEnumIterator;

use super::Role;
use super::verifier::Refused;

/// The longest key file that is read, in bytes.
const KEY_FILE_MAX: u64 = 64 * 1024;
/// RFC 7518, 3.2: as long as the hash.
const SECRET_MIN: usize = 32;
/// At least as RFC 7518, 3.3; with more than this, jsonwebtoken's RSA verifies nothing.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// What a key of the set verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUse {
    Jwt,
    Biscuit,
}

impl KeyUse {
    /// As in a JWK's `use`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jwt => "sig",
            Self::Biscuit => "biscuit",
        }
    }
}

/// The keys of one reading of the file.
#[derive(Default)]
pub struct KeyRing {
    jwt: HashMap<String, JwtKey>,
    biscuit: HashMap<u32, RootKey>,
    secrets: usize,
    /// Of other uses and algorithms: an identity provider's set may hold more than we need.
    skipped: usize,
}

/// Verifies JWTs.
pub(super) struct JwtKey {
    pub(super) key: DecodingKey,
    pub(super) algorithm: Algorithm,
    pub(super) signer: Signer,
}

/// Verifies Biscuits.
pub(super) struct RootKey {
    pub(super) public: PublicKey,
    pub(super) signer: Signer,
}

/// Who has signed, as far as the key tells.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Signer {
    pub(super) kid: String,
    /// RFC 7638, with SHA-256; none of a secret.
    pub(super) thumbprint: Option<String>,
    /// `key_roles({...})`: the roles that this key may vouch for.
    pub(super) roles: Fact,
}

/// The file cannot be used. Never repeats what is in it.
#[derive(Debug, thiserror::Error)]
#[error("AUTH_KEYS_FILE {}: {problem}", .path.display())]
pub struct KeyError {
    pub path: PathBuf,
    pub problem: KeyProblem,
}

/// What is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum KeyProblem {
    #[error("{0}; `returnsctl token keygen` makes one")]
    Io(#[from] io::Error),
    #[error("longer than {KEY_FILE_MAX} bytes")]
    Length,
    #[error("no JWK set: {{\"keys\": [...]}} is expected")]
    NoSet,
    /// Where a program starts; while it runs, the last key may be taken out.
    #[error("it holds no key that verifies tokens")]
    Empty,
    #[error("key {number}: {reason}")]
    Key { number: usize, reason: &'static str },
    #[error("others may read it, and it holds a secret (kty oct); To do: chmod 600")]
    Open,
    #[error("others may write it, and so let in whom they like; To do: chmod go-w")]
    Writable,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the keys: `Debug` of key material has leaked secrets before.
        f.debug_struct("KeyRing")
            .field("jwt", &self.jwt.keys())
            .field("biscuit", &self.biscuit.keys())
            .field("skipped", &self.skipped)
            .finish_non_exhaustive()
    }
}

impl KeyRing {
    /// # Errors
    /// The file cannot be read or used; the message says which key, and never what it holds.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        Self::read(path).map_err(|problem| KeyError {
            path: path.to_owned(),
            problem,
        })
    }

    fn read(path: &Path) -> Result<Self, KeyProblem> {
        let file = File::open(path)?;
        let mode = file.metadata()?.mode();
        let mut text = Vec::new();
        file.take(KEY_FILE_MAX + 1).read_to_end(&mut text)?;
        if u64::try_from(text.len()).is_ok_and(|length| length > KEY_FILE_MAX) {
            return Err(KeyProblem::Length);
        }
        if mode & 0o022 != 0 {
            return Err(KeyProblem::Writable);
        }
        let ring = Self::parse(&text)?;
        if ring.secrets > 0 && mode & 0o077 != 0 {
            return Err(KeyProblem::Open);
        }
        Ok(ring)
    }

    fn parse(text: &[u8]) -> Result<Self, KeyProblem> {
        let set: Set = serde_json::from_slice(text).map_err(|_| KeyProblem::NoSet)?;
        let mut ring = Self::default();
        for (index, key) in set.keys.into_iter().enumerate() {
            let number = index + 1;
            ring.add(key)
                .map_err(|reason| KeyProblem::Key { number, reason })?;
        }
        Ok(ring)
    }

    fn add(&mut self, key: Value) -> Result<(), &'static str> {
        if key.get("d").is_some() {
            return Err("it holds the private half; only public keys belong here");
        }
        let roles = roles(key.get("roles"))?;
        let jwk: Jwk = serde_json::from_value(key).map_err(|_| "it is no JWK")?;
        let key_use = match &jwk.common.public_key_use {
            None | Some(PublicKeyUse::Signature) => KeyUse::Jwt,
            Some(PublicKeyUse::Other(other)) if other == KeyUse::Biscuit.as_str() => {
                KeyUse::Biscuit
            }
            Some(PublicKeyUse::Encryption | PublicKeyUse::Other(_)) => {
                self.skipped += 1;
                return Ok(());
            }
        };
        let kid = jwk.common.key_id.clone().filter(|kid| !kid.is_empty());
        let kid = kid.ok_or("it has no kid")?;
        let signer = Signer {
            thumbprint: thumbprint(&jwk),
            roles,
            kid: kid.clone(),
        };
        let twice = match key_use {
            KeyUse::Jwt => {
                let Some(key) = self.jwt_key(&jwk, signer)? else {
                    self.skipped += 1;
                    return Ok(());
                };
                self.jwt.insert(kid, key).is_some()
            }
            KeyUse::Biscuit => {
                let number: u32 = kid.parse().map_err(|_| BISCUIT_KID)?;
                if number.to_string() != kid {
                    return Err(BISCUIT_KID);
                }
                let key = root_key(&jwk, signer)?;
                self.biscuit.insert(number, key).is_some()
            }
        };
        if twice {
            return Err("another key has the same kid");
        }
        Ok(())
    }

    /// The algorithm is the key's, never the token's: each kind of key has one. `None` for kinds that are not ours.
    fn jwt_key(&mut self, jwk: &Jwk, signer: Signer) -> Result<Option<JwtKey>, &'static str> {
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                // jsonwebtoken would panic at one that is too short, when a token comes.
                ed25519(&pair.x).ok_or(UNUSABLE)?;
                Algorithm::EdDSA
            }
            AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
                Algorithm::ES256
            }
            AlgorithmParameters::RSA(rsa) => {
                if !RSA_BITS.contains(&bits(&rsa.n)?) {
                    return Err("an RSA key of less than 2048 or more than 4096 bits");
                }
                Algorithm::RS256
            }
            AlgorithmParameters::OctetKey(secret) => {
                self.secrets += 1;
                let secret = BASE64_URL_SAFE_NO_PAD.decode(&secret.value);
                if secret.map_err(|_| "k is no base64url")?.len() < SECRET_MIN {
                    return Err("a secret of less than 32 bytes");
                }
                Algorithm::HS256
            }
            _ => return Ok(None),
        };
        if jwk
            .common
            .key_algorithm
            .is_some_and(|named| Algorithm::try_from(named).ok() != Some(algorithm))
        {
            return Ok(None);
        }
        let key = DecodingKey::from_jwk(jwk).map_err(|_| UNUSABLE)?;
        // No signature, but whether the key is a point of its curve is looked at here, and not when a token comes.
        jsonwebtoken::crypto::verify("", b"", &key, algorithm).map_err(|_| UNUSABLE)?;
        Ok(Some(JwtKey {
            key,
            algorithm,
            signer,
        }))
    }

    /// The key of this `kid`; without one, the only key there is.
    pub(super) fn jwt(&self, kid: Option<&str>) -> Result<&JwtKey, Refused> {
        let mut all = self.jwt.values();
        let found = match kid {
            Some(kid) => self.jwt.get(kid),
            None => all.next().filter(|_| all.next().is_none()),
        };
        found.ok_or(Refused::UnknownKey)
    }

    pub(super) fn biscuit(&self, root_key_id: Option<u32>) -> Result<&RootKey, Refused> {
        root_key_id
            .and_then(|id| self.biscuit.get(&id))
            .ok_or(Refused::UnknownKey)
    }

    /// Whether this very key is here, for the same roles. Not known of a secret, which has no thumbprint.
    pub(super) fn holds(&self, key_use: KeyUse, signer: &Signer) -> bool {
        let held = match key_use {
            KeyUse::Jwt => self.jwt.get(&signer.kid).map(|key| &key.signer),
            KeyUse::Biscuit => signer
                .kid
                .parse()
                .ok()
                .and_then(|id| self.biscuit.get(&id))
                .map(|key| &key.signer),
        };
        signer.thumbprint.is_some() && held == Some(signer)
    }

    /// How many keys verify tokens of this format.
    pub fn count(&self, key_use: KeyUse) -> usize {
        match key_use {
            KeyUse::Jwt => self.jwt.len(),
            KeyUse::Biscuit => self.biscuit.len(),
        }
    }

    /// Whether no token can be verified.
    pub fn is_empty(&self) -> bool {
        self.jwt.is_empty() && self.biscuit.is_empty()
    }

    /// Whether there is such a key.
    pub fn has(&self, key_use: KeyUse, kid: &str) -> bool {
        match key_use {
            KeyUse::Jwt => self.jwt.contains_key(kid),
            KeyUse::Biscuit => kid.parse().is_ok_and(|id| self.biscuit.contains_key(&id)),
        }
    }
}

const UNUSABLE: &str = "it is no usable key";
const BISCUIT_KID: &str = "a Biscuit's root key has a number as kid, from 0 to 4294967295";

/// Ed25519 only: whoever holds a token signed with P-256 can change its signature, and so its revocation id.
fn root_key(jwk: &Jwk, signer: Signer) -> Result<RootKey, &'static str> {
    const NO_KEY: &str = "a Biscuit's root key is an Ed25519 key (kty OKP)";
    let AlgorithmParameters::OctetKeyPair(pair) = &jwk.algorithm else {
        return Err(NO_KEY);
    };
    if pair.curve != EllipticCurve::Ed25519 {
        return Err(NO_KEY);
    }
    let public = ed25519(&pair.x).ok_or(NO_KEY)?;
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

/// All roles, unless the key says which.
fn roles(named: Option<&Value>) -> Result<Fact, &'static str> {
    const NO_ROLES: &str = "roles is no list of customer, admin, auditor";
    let roles: Vec<Role> = match named {
        None => Role::iter().collect(),
        Some(named) => serde_json::from_value(named.clone()).map_err(|_| NO_ROLES)?,
    };
    let terms: BTreeSet<Term> = roles.iter().map(|role| Term::from(role.as_str())).collect();
    Ok(fact("key_roles", &[Term::Set(terms)]))
}

/// Of a big-endian number.
fn bits(base64url: &str) -> Result<usize, &'static str> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(base64url);
    let bytes = bytes.map_err(|_| "n is no base64url")?;
    let leading = bytes.iter().position(|byte| *byte != 0);
    let Some(leading) = leading else { return Ok(0) };
    let first = usize::try_from(bytes[leading].leading_zeros()).unwrap_or(0);
    Ok((bytes.len() - leading) * 8 - first)
}

#[cfg(test)]
mod tests;
