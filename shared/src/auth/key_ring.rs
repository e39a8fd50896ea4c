//! The keys that verify tokens, from one JWK set. Each key has one format and one algorithm.

mod jwk;

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use biscuit_auth::PublicKey;
use biscuit_auth::builder::Fact;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use self::jwk::ParsedKey;
use super::AuthArgs;

/// The longest key file that is read, in bytes.
const KEY_FILE_MAX: u64 = 64 * 1024;

/// The kind of token that a key verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUse {
    Jwt,
    Biscuit,
}

impl KeyUse {
    /// The `use` of a JWK.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jwt => "sig",
            Self::Biscuit => "biscuit",
        }
    }
}

/// The keys that the file held when it was read.
#[derive(Default)]
pub struct KeyRing {
    jwt: HashMap<String, JwtKey>,
    biscuit: HashMap<u32, RootKey>,
    /// Shared secrets, also those that are skipped: other users must not be able to read a file with one.
    secrets: usize,
    /// Keys of other uses and algorithms: an identity provider's set may hold more than we need.
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

/// The properties of the signer that the key file states.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Signer {
    pub(super) kid: String,
    /// RFC 7638, with SHA-256; a shared secret has none.
    pub(super) thumbprint: Option<String>,
    /// `key_roles({...})`: the roles that this key may sign for.
    pub(super) roles: Fact,
    /// The issuer of its tokens, if it is another one than AUTH_ISSUER.
    pub(super) issuer: Option<Arc<str>>,
}

impl Signer {
    /// The issuer that its tokens must name.
    pub(super) fn issuer<'a>(&'a self, args: &'a AuthArgs) -> &'a str {
        self.issuer.as_deref().unwrap_or(&args.auth_issuer)
    }
}

/// Why the key file cannot be used. It never repeats the content of the file.
#[derive(Debug, thiserror::Error)]
#[error("AUTH_KEYS_FILE {}: {problem}", .path.display())]
pub struct KeyError {
    pub path: PathBuf,
    pub problem: KeyProblem,
}

/// What is wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum KeyProblem {
    #[error("{0}; `returnsctl token keygen --format jwt` writes one")]
    Io(#[from] io::Error),
    #[error("longer than {KEY_FILE_MAX} bytes")]
    Length,
    #[error("not a JWK set: {{\"keys\": [...]}} is expected")]
    NoSet,
    /// Only when a program starts; while it runs, the last key may be removed.
    #[error("it holds no key that verifies tokens")]
    Empty,
    #[error(
        "key {0}: its issuer is AUTH_ISSUER; leave issuer out, or its users would count as others than customers"
    )]
    OurIssuer(String),
    #[error("key {number}: {reason}")]
    Key { number: usize, reason: &'static str },
    #[error("other users may read it, and it holds a secret (kty oct); To do: chmod 600")]
    Open,
    #[error("other users may write it, and so add keys of their own; To do: chmod go-w")]
    Writable,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
    /// The file cannot be read or used. The message names the key, and never repeats its content.
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

    /// The `kid` of a key whose `issuer` is this one.
    pub(super) fn kid_of_issuer(&self, issuer: &str) -> Option<&str> {
        let jwt = self.jwt.values().map(|key| &key.signer);
        let mut signers = jwt.chain(self.biscuit.values().map(|key| &key.signer));
        let found = signers.find(|signer| signer.issuer.as_deref() == Some(issuer))?;
        Some(&found.kid)
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
        let replaced = match jwk::parse(key)? {
            ParsedKey::Jwt(key) => {
                self.secrets += usize::from(key.algorithm == Algorithm::HS256);
                self.jwt.insert(key.signer.kid.clone(), key).is_some()
            }
            ParsedKey::Biscuit(number, key) => self.biscuit.insert(number, key).is_some(),
            ParsedKey::Unsupported { is_secret } => {
                self.secrets += usize::from(is_secret);
                self.skipped += 1;
                false
            }
        };
        if replaced {
            return Err("another key has the same kid");
        }
        Ok(())
    }

    /// The key with this `kid`. Without a `kid`, the key if there is exactly one.
    pub(super) fn jwt(&self, kid: Option<&str>) -> Option<&JwtKey> {
        let mut all = self.jwt.values();
        match kid {
            Some(kid) => self.jwt.get(kid),
            None => all.next().filter(|_| all.next().is_none()),
        }
    }

    pub(super) fn biscuit(&self, root_key_id: Option<u32>) -> Option<&RootKey> {
        self.biscuit.get(&root_key_id?)
    }

    /// Whether the ring has exactly this key, for the same roles. This cannot be known of a secret, which has no
    /// thumbprint.
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

    /// Whether the ring can verify no token at all.
    pub fn is_empty(&self) -> bool {
        self.jwt.is_empty() && self.biscuit.is_empty()
    }

    /// Whether the ring has a key with this `kid`.
    pub fn has(&self, key_use: KeyUse, kid: &str) -> bool {
        match key_use {
            KeyUse::Jwt => self.jwt.contains_key(kid),
            KeyUse::Biscuit => kid.parse().is_ok_and(|id| self.biscuit.contains_key(&id)),
        }
    }
}

#[cfg(test)]
mod tests;
