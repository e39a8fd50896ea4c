//! The keys that sign tokens: private keys in files of their own, public keys in the key set that the api reads.
//!
//! Under a lock on the set's folder, the public key is added to the set first; then the private file appears whole or not
//! at all. So two processes that make a key at once end with one key. A private file whose key is not in the set was
//! retired: it is never added again without a command.

mod files;
mod signer;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use shared::auth::{KeyRing, KeyUse, Role};

use self::files::{io_error, make_folder, write_temporary};
pub(crate) use self::signer::{Signer, read_private};
use crate::error::CtlError;

/// The files of the keys.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct KeyArgs {
    /// JWK set with the public keys, which the api verifies tokens with.
    #[arg(
        long,
        env = "AUTH_KEYS_FILE",
        default_value = ".stack/keys/keys.json",
        value_name = "FILE"
    )]
    pub(crate) auth_keys_file: PathBuf,

    /// PEM file (PKCS #8) with the Ed25519 private key that signs JWTs, readable by its owner alone. The api must not have
    /// it.
    #[arg(
        long,
        env = "JWT_PRIVATE_KEY_FILE",
        default_value = ".stack/keys/jwt.pem",
        value_name = "FILE"
    )]
    pub(crate) jwt_private_key_file: PathBuf,

    /// The same for the private root key of Biscuits.
    #[arg(
        long,
        env = "BISCUIT_PRIVATE_KEY_FILE",
        default_value = ".stack/keys/biscuit.pem",
        value_name = "FILE"
    )]
    pub(crate) biscuit_private_key_file: PathBuf,
}

/// The value of `--format` for tokens that such a key signs.
pub(crate) fn format_of(key_use: KeyUse) -> &'static str {
    match key_use {
        KeyUse::Jwt => "jwt",
        KeyUse::Biscuit => "biscuit",
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
                self.is_for_development(key_use)?;
                self.make(key_use, path, &[])
            }
            Some(signer) if self.holds(&signer)? => Ok(signer),
            Some(signer) => Err(CtlError::Problem(format!(
                "the key of {} (kid {}) is not in {}: it was retired, or the set is another's, and the api would refuse \
                 what it signs.\n\
                 To do: point AUTH_KEYS_FILE at the api's key set, or make a new key with `returnsctl token keygen \
                 --format {format} --private-key-file FILE`",
                path.display(),
                signer.kid(),
                self.auth_keys_file.display(),
                format = format_of(key_use),
            ))),
        }
    }

    /// A key is made without a command only for a new set, or for one that has another key from here: people trust a set
    /// that they keep themselves.
    fn is_for_development(&self, wanted: KeyUse) -> Result<(), CtlError> {
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
            "there is no private key here for any key of {}.\n\
             To do: `returnsctl token keygen --format {format}` makes one and adds it to the set; or name the private key file",
            self.auth_keys_file.display(),
            format = format_of(wanted),
        )))
    }

    /// Removes a key from the set: the api refuses its tokens as soon as it has read the set again.
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

    /// Makes a key pair: the private key goes into a new file, the public key into the set.
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

    /// Whether the set has the public key.
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
        let signer = Signer::generate(key_use);
        // First: a public key in the set without its private key does no harm.
        self.add(signer.jwk(roles))?;
        make_folder(path)?;
        let pem = signer.pem();
        let temporary = write_temporary(path, pem.as_ref().as_bytes(), 0o600)?;
        // A link fails if the name was taken meanwhile: the lock covers the set's folder only.
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

    /// Replaces the file of the set by one with changed keys; `false` if `change` changes nothing.
    fn change(&self, change: impl FnOnce(&mut Vec<Value>) -> bool) -> Result<bool, CtlError> {
        let path = self.place();
        let (mut set, of) = match fs::read(&path) {
            Ok(text) => {
                // As strict as the api: a set that it would refuse is not extended.
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
        // The file keeps its owner, also when root runs this: the api must be able to read it.
        let owned = of.map_or(Ok(()), |of| {
            chown(&temporary, Some(of.uid()), Some(of.gid()))
        });
        let replaced = owned.and_then(|()| fs::rename(&temporary, &path));
        if replaced.is_err() {
            // It may hold secrets. The first error is the one to report.
            let _ = fs::remove_file(&temporary);
        }
        replaced.map_err(|error| io_error("write", &path, error))?;
        Ok(true)
    }

    /// The file of the set, also if its name is a link: one file has one lock.
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
