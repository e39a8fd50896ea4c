//! The keys that sign tokens: private files of their own, their public halves in the key set that the api reads.
//!
//! Under a lock on the set's folder the public half is added to the set first, then the private file appears whole or
//! not at all. So two processes that make a key at once end with one, and a private file whose key is not in the set
//! was retired: it is never added again in silence.

mod files;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use biscuit_auth::builder::Algorithm;
use biscuit_auth::{KeyPair, PrivateKey};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes};
use rand::Rng;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::auth::{KeyRing, KeyUse, Role};

use self::files::{io_error, make_folder, write_temporary};
use crate::error::CtlError;

/// Where the keys lie.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct KeyArgs {
    /// JWK set with the public halves, which the api verifies tokens with.
    #[arg(
        long,
        env = "AUTH_KEYS_FILE",
        default_value = ".stack/keys/keys.json",
        value_name = "FILE"
    )]
    pub(crate) auth_keys_file: PathBuf,

    /// PEM file (PKCS #8) with the Ed25519 private key that signs JWTs, readable by its owner alone. The api must not
    /// have it.
    #[arg(
        long,
        env = "JWT_PRIVATE_KEY_FILE",
        default_value = ".stack/keys/jwt.pem",
        value_name = "FILE"
    )]
    pub(crate) jwt_private_key_file: PathBuf,

    /// The same for the root key of Biscuits.
    #[arg(
        long,
        env = "BISCUIT_PRIVATE_KEY_FILE",
        default_value = ".stack/keys/biscuit.pem",
        value_name = "FILE"
    )]
    pub(crate) biscuit_private_key_file: PathBuf,
}

/// A private key and what it signs.
pub(crate) struct Signer {
    pub(crate) key: SigningKey,
    pub(crate) key_use: KeyUse,
}

impl Signer {
    /// Made from the key itself, so that it needs no file of its own: for JWTs the first 16 hex digits of SHA-256 over
    /// the 32 bytes of the public key, for Biscuits, whose ids are numbers of 32 bits, its first four bytes.
    pub(crate) fn kid(&self) -> String {
        match self.key_use {
            KeyUse::Jwt => hex::encode(&self.digest()[..8]),
            KeyUse::Biscuit => self.root_key_id().to_string(),
        }
    }

    pub(crate) fn root_key_id(&self) -> u32 {
        let [a, b, c, d, ..] = self.digest();
        u32::from_be_bytes([a, b, c, d])
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.key.verifying_key().as_bytes()).into()
    }

    /// As jsonwebtoken and OpenSSL 1.1.1 read it: PKCS #8 version 1, without the public half.
    pub(crate) fn pem(&self) -> impl AsRef<str> + use<> {
        let pair = KeypairBytes {
            secret_key: self.key.to_bytes(),
            public_key: None,
        };
        pair.to_pkcs8_pem(LineEnding::LF)
            .expect("32 bytes always encode")
    }

    pub(crate) fn biscuit(&self) -> KeyPair {
        let private = PrivateKey::from_bytes(&self.key.to_bytes(), Algorithm::Ed25519);
        KeyPair::from(&private.expect("32 bytes are a key"))
    }

    /// The public half (RFC 8037), with the roles it may vouch for, if not all.
    fn jwk(&self, roles: &[Role]) -> Value {
        let mut jwk = json!({
            "kty": "OKP",
            "crv": "Ed25519",
            "x": BASE64_URL_SAFE_NO_PAD.encode(self.key.verifying_key().as_bytes()),
            "kid": self.kid(),
            "use": self.key_use.as_str(),
            "alg": "EdDSA",
        });
        if !roles.is_empty() {
            jwk["roles"] = json!(roles);
        }
        jwk
    }
}

impl KeyArgs {
    pub(crate) fn private_key_file(&self, key_use: KeyUse) -> &Path {
        match key_use {
            KeyUse::Jwt => &self.jwt_private_key_file,
            KeyUse::Biscuit => &self.biscuit_private_key_file,
        }
    }

    /// The signing key, made if there is none.
    ///
    /// # Errors
    /// The private file is open to others or unreadable, or its key is not in the set: the api would refuse what it
    /// signs.
    pub(crate) fn ensure(&self, key_use: KeyUse) -> Result<Signer, CtlError> {
        let _lock = self.lock()?;
        let path = self.private_key_file(key_use);
        match read_private(path, key_use)? {
            None => {
                self.is_for_development()?;
                self.make(key_use, path, &[])
            }
            Some(signer) if self.holds(&signer)? => Ok(signer),
            Some(signer) => Err(CtlError::Problem(format!(
                "the key of {} (kid {}) is not in {}: it was retired, or the set is another's, and the api would refuse \
                 what it signs.\n\
                 To do: point AUTH_KEYS_FILE at the api's key set, or make a new key with `returnsctl token keygen`",
                path.display(),
                signer.kid(),
                self.auth_keys_file.display(),
            ))),
        }
    }

    /// Keys are made unasked for a new set, or one with another key of ours: a set that others keep is their trust.
    fn is_for_development(&self) -> Result<(), CtlError> {
        if !self.auth_keys_file.exists() {
            return Ok(());
        }
        let ring = self.ring()?;
        let ours = |key_use| {
            let signer = read_private(self.private_key_file(key_use), key_use).ok()?;
            signer.filter(|signer| ring.has(key_use, &signer.kid()))
        };
        if [KeyUse::Jwt, KeyUse::Biscuit]
            .into_iter()
            .any(|key_use| ours(key_use).is_some())
        {
            return Ok(());
        }
        Err(CtlError::Problem(format!(
            "there is no private key here, and the keys of {} are others'.\n\
             To do: `returnsctl token keygen` makes one and adds it to the set; or name the private key file",
            self.auth_keys_file.display()
        )))
    }

    /// Takes a key out of the set: what it has signed is refused as soon as it is read.
    ///
    /// # Errors
    /// There is no such key, or the set cannot be read or written.
    pub(crate) fn retire(&self, kid: &str) -> Result<(), CtlError> {
        let _lock = self.lock()?;
        self.change(|keys| {
            let before = keys.len();
            keys.retain(|key| key["kid"] != kid);
            keys.len() < before
        })?
        .then_some(())
        .ok_or_else(|| {
            CtlError::Problem(format!(
                "{} holds no key with kid {kid}; nothing was changed",
                self.auth_keys_file.display()
            ))
        })
    }

    /// Makes a key pair: the private half into a new file, the public half into the set.
    ///
    /// # Errors
    /// The private file exists, or one of the files cannot be written or read.
    pub(crate) fn generate(
        &self,
        key_use: KeyUse,
        path: &Path,
        roles: &[Role],
    ) -> Result<Signer, CtlError> {
        let _lock = self.lock()?;
        if path.exists() {
            return Err(CtlError::Problem(format!(
                "{} exists; a key that may be in use is never overwritten.\n\
                 To do: name a new file with --private-key-file",
                path.display()
            )));
        }
        self.make(key_use, path, roles)
    }

    /// Whether the set has the public half.
    pub(crate) fn holds(&self, signer: &Signer) -> Result<bool, CtlError> {
        if !self.auth_keys_file.exists() {
            return Ok(false);
        }
        let ring = self.ring()?;
        Ok(ring.has(signer.key_use, &signer.kid()))
    }

    /// # Errors
    /// It cannot be read, or the api would not start with it.
    pub(crate) fn ring(&self) -> Result<KeyRing, CtlError> {
        KeyRing::load(&self.auth_keys_file).map_err(|error| CtlError::Problem(error.to_string()))
    }

    fn make(&self, key_use: KeyUse, path: &Path, roles: &[Role]) -> Result<Signer, CtlError> {
        let mut secret = [0; 32];
        rand::rng().fill_bytes(&mut secret);
        let signer = Signer {
            key: SigningKey::from_bytes(&secret),
            key_use,
        };
        // First: a key in the set whose private half was never written harms nobody.
        self.add(signer.jwk(roles))?;
        make_folder(path)?;
        let pem = signer.pem();
        let temporary = write_temporary(path, pem.as_ref().as_bytes(), 0o600)?;
        // Linked, which fails if the name was taken meanwhile: the lock is that of the set's folder.
        let linked = fs::hard_link(&temporary, path);
        fs::remove_file(&temporary).map_err(|error| io_error("remove", &temporary, error))?;
        linked.map_err(|error| io_error("write", path, error))?;
        Ok(signer)
    }

    fn add(&self, jwk: Value) -> Result<(), CtlError> {
        self.change(|keys| {
            keys.push(jwk);
            true
        })?;
        Ok(())
    }

    /// Replaces the set by one with its keys changed, at once; answers whether they were.
    fn change(&self, change: impl FnOnce(&mut Vec<Value>) -> bool) -> Result<bool, CtlError> {
        let path = self.place();
        let (mut set, of) = match fs::read(&path) {
            Ok(text) => {
                // As strictly as the api: what it would refuse is not made longer.
                self.ring()?;
                let of = fs::metadata(&path).map_err(|error| io_error("read", &path, error))?;
                (serde_json::from_slice(&text).unwrap_or_default(), Some(of))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => (json!({ "keys": [] }), None),
            Err(error) => return Err(io_error("read", &path, error)),
        };
        let Some(keys) = set.get_mut("keys").and_then(Value::as_array_mut) else {
            return Err(CtlError::Problem(format!(
                "{} changed while it was read.\nTo do: run again",
                path.display()
            )));
        };
        if !change(keys) {
            return Ok(false);
        }
        let text = serde_json::to_string_pretty(&set).expect("it was read from JSON") + "\n";
        let mode = of.as_ref().map_or(0o644, |of| of.mode() & 0o777);
        let temporary = write_temporary(&path, text.as_bytes(), mode)?;
        // It stays its owner's, also where root runs this: the api must be able to read it.
        let owned = of.map_or(Ok(()), |of| {
            chown(&temporary, Some(of.uid()), Some(of.gid()))
        });
        let replaced = owned.and_then(|()| fs::rename(&temporary, &path));
        if replaced.is_err() {
            // It may hold secrets. What failed first is told.
            let _ = fs::remove_file(&temporary);
        }
        replaced.map_err(|error| io_error("write", &path, error))?;
        Ok(true)
    }

    /// Where the set lies, if it is a link: one file has one lock.
    fn place(&self) -> PathBuf {
        let named = &self.auth_keys_file;
        fs::canonicalize(named).unwrap_or_else(|_| named.clone())
    }

    /// Held until it is dropped.
    fn lock(&self) -> Result<File, CtlError> {
        make_folder(&self.auth_keys_file)?;
        let place = self.place();
        let folder = match place.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let lock = File::open(folder).map_err(|error| io_error("open", folder, error))?;
        lock.lock()
            .map_err(|error| io_error("lock", folder, error))?;
        Ok(lock)
    }
}

/// The key of a private file; `None` if there is no such file.
pub(crate) fn read_private(path: &Path, key_use: KeyUse) -> Result<Option<Signer>, CtlError> {
    let pem = match fs::read_to_string(path) {
        Ok(pem) => pem,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", path, error)),
    };
    let mode = fs::metadata(path)
        .map_err(|error| io_error("read", path, error))?
        .mode();
    if mode & 0o077 != 0 {
        return Err(CtlError::Problem(format!(
            "others may read the private key {0} (mode {1:03o}).\nTo do: chmod 600 {0}",
            path.display(),
            mode & 0o777
        )));
    }
    match SigningKey::from_pkcs8_pem(&pem) {
        Ok(key) => Ok(Some(Signer { key, key_use })),
        // Without the cause: it could quote the key.
        Err(_) => Err(CtlError::Problem(format!(
            "{} holds no Ed25519 private key in PKCS #8 PEM",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(seed: u8, key_use: KeyUse) -> Signer {
        Signer {
            key: SigningKey::from_bytes(&[seed; 32]),
            key_use,
        }
    }

    #[test]
    fn a_key_is_named_by_the_hash_of_its_public_half() {
        let (one, other) = (signer(7, KeyUse::Jwt), signer(8, KeyUse::Jwt));
        assert_eq!(one.kid().len(), 16);
        assert_ne!(one.kid(), other.kid());
        let root = signer(7, KeyUse::Biscuit);
        assert_eq!(root.kid().parse(), Ok(root.root_key_id()));
    }

    #[test]
    fn the_private_pem_is_read_back() {
        let signer = signer(7, KeyUse::Jwt);
        let back = SigningKey::from_pkcs8_pem(signer.pem().as_ref()).expect("our own encoding");
        assert_eq!(back.to_bytes(), signer.key.to_bytes());
    }
}
