//! The key pair that signs tokens in development: made on first use, never committed.
//!
//! The private file is the truth and appears whole or not at all (a finished temporary file is linked to its name,
//! which fails if the name is taken). The public file is always derived from the private one on disk. So two
//! processes that make the pair at once end with one pair, and its halves match.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{
    DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, KeypairBytes,
};
use ed25519_dalek::{SigningKey, VerifyingKey};
use rand::Rng;
use sha2::{Digest, Sha256};
use shared::hex;
use uuid::Uuid;

use crate::error::CtlError;

/// Where the key pair lies.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct KeyArgs {
    /// PEM file (PKCS #8) with the Ed25519 private key that signs tokens. Made on first use, readable by its owner
    /// alone. The api must not have it.
    #[arg(
        long,
        env = "JWT_PRIVATE_KEY_FILE",
        default_value = ".stack/keys/jwt.pem",
        value_name = "FILE"
    )]
    pub(crate) jwt_private_key_file: PathBuf,

    /// PEM file (SPKI) with its public half, which the api verifies tokens with. Made beside it.
    #[arg(
        long,
        env = "JWT_PUBLIC_KEY_FILE",
        default_value = ".stack/keys/jwt.pub.pem",
        value_name = "FILE"
    )]
    pub(crate) jwt_public_key_file: PathBuf,
}

/// What is on disk.
pub(crate) enum KeyState {
    Ready(SigningKey),
    /// Neither half: the first `token mint` makes both.
    Absent,
    /// The private half without its public half: the next `token mint` writes it.
    PublicMissing(SigningKey),
    Unusable(CtlError),
}

impl KeyArgs {
    /// The signing key, made if there is none.
    ///
    /// # Errors
    /// The private file is open to others, unreadable, or does not belong to the public file.
    pub(crate) fn ensure(&self) -> Result<SigningKey, CtlError> {
        match self.state() {
            KeyState::Ready(key) => Ok(key),
            KeyState::PublicMissing(key) => self.publish(key),
            KeyState::Unusable(error) => Err(error),
            KeyState::Absent => {
                create_private(&self.jwt_private_key_file)?;
                // Whoever won the race: what counts is the file.
                match self.state() {
                    KeyState::Ready(key) => Ok(key),
                    KeyState::PublicMissing(key) => self.publish(key),
                    KeyState::Unusable(error) => Err(error),
                    KeyState::Absent => Err(CtlError::Problem(format!(
                        "{} was deleted while it was made",
                        self.jwt_private_key_file.display()
                    ))),
                }
            }
        }
    }

    /// Looks at both files without changing anything.
    pub(crate) fn state(&self) -> KeyState {
        self.read().unwrap_or_else(KeyState::Unusable)
    }

    fn read(&self) -> Result<KeyState, CtlError> {
        // The public file is looked at first: a pair that appears in between is then seen whole.
        let public = read_public(&self.jwt_public_key_file)?;
        let private = read_private(&self.jwt_private_key_file)?;
        match (private, public) {
            (None, None) => Ok(KeyState::Absent),
            (Some(key), None) => Ok(KeyState::PublicMissing(key)),
            (Some(key), Some(public)) if key.verifying_key() == public => Ok(KeyState::Ready(key)),
            (Some(_), Some(_)) => Err(CtlError::Problem(format!(
                "{} is not the public half of {}: tokens would not verify.\n\
                 To do: delete {0} (the next `returnsctl token mint` writes the right one), then restart the api",
                self.jwt_public_key_file.display(),
                self.jwt_private_key_file.display(),
            ))),
            (None, Some(_)) => Err(CtlError::Problem(format!(
                "{} is there without its private half {}: a new pair would cut off whoever holds the old one.\n\
                 To do: bring the private file, or delete the public one to get a new pair",
                self.jwt_public_key_file.display(),
                self.jwt_private_key_file.display(),
            ))),
        }
    }

    fn publish(&self, key: SigningKey) -> Result<SigningKey, CtlError> {
        let pem = key
            .verifying_key()
            .to_public_key_pem(LineEnding::LF)
            .expect("32 bytes always encode");
        let path = &self.jwt_public_key_file;
        make_folder(path)?;
        let temporary = write_temporary(path, pem.as_bytes(), 0o644)?;
        fs::rename(&temporary, path).map_err(|error| io_error("write", path, error))?;
        Ok(key)
    }
}

/// Names a key in a token's `kid`: the first 16 hex digits of SHA-256 over the 32 bytes of the public key.
pub(crate) fn key_id(key: &VerifyingKey) -> String {
    hex::encode(&Sha256::digest(key.as_bytes())[..8])
}

/// The key as jsonwebtoken and OpenSSL 1.1.1 read it: PKCS #8 version 1, without the public half.
pub(crate) fn private_pem(key: &SigningKey) -> impl AsRef<str> + use<> {
    let pair = KeypairBytes {
        secret_key: key.to_bytes(),
        public_key: None,
    };
    pair.to_pkcs8_pem(LineEnding::LF)
        .expect("32 bytes always encode")
}

fn create_private(path: &Path) -> Result<(), CtlError> {
    make_folder(path)?;
    let mut secret = [0; 32];
    rand::rng().fill_bytes(&mut secret);
    let pem = private_pem(&SigningKey::from_bytes(&secret));
    let temporary = write_temporary(path, pem.as_ref().as_bytes(), 0o600)?;
    let linked = fs::hard_link(&temporary, path);
    let removed = fs::remove_file(&temporary);
    match linked {
        // Another process was first; its key is used.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        other => other.map_err(|error| io_error("write", path, error))?,
    }
    removed.map_err(|error| io_error("remove", &temporary, error))
}

fn read_private(path: &Path) -> Result<Option<SigningKey>, CtlError> {
    let Some(pem) = read(path)? else {
        return Ok(None);
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
        Ok(key) => Ok(Some(key)),
        // Without the cause: it could quote the key.
        Err(_) => Err(CtlError::Problem(format!(
            "{} holds no Ed25519 private key in PKCS #8 PEM",
            path.display()
        ))),
    }
}

fn read_public(path: &Path) -> Result<Option<VerifyingKey>, CtlError> {
    let Some(pem) = read(path)? else {
        return Ok(None);
    };
    VerifyingKey::from_public_key_pem(&pem)
        .map(Some)
        .map_err(|_| {
            CtlError::Problem(format!(
                "{} holds no Ed25519 public key in SPKI PEM",
                path.display()
            ))
        })
}

fn read(path: &Path) -> Result<Option<String>, CtlError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path, error)),
    }
}

fn make_folder(path: &Path) -> Result<(), CtlError> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            fs::create_dir_all(folder).map_err(|error| io_error("create", folder, error))
        }
        _ => Ok(()),
    }
}

/// A finished file beside `path`, to be linked or renamed to it.
fn write_temporary(path: &Path, content: &[u8], mode: u32) -> Result<PathBuf, CtlError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", Uuid::now_v7().simple()));
    let temporary = path.with_file_name(name);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|error| io_error("write", &temporary, error))?;
    Ok(temporary)
}

fn io_error(verb: &str, path: &Path, source: io::Error) -> CtlError {
    CtlError::Io {
        what: format!("cannot {verb} {}", path.display()),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_by_the_hash_of_its_public_half() {
        let key = SigningKey::from_bytes(&[7; 32]);
        assert_eq!(key_id(&key.verifying_key()).len(), 16);
        assert_ne!(
            key_id(&key.verifying_key()),
            key_id(&SigningKey::from_bytes(&[8; 32]).verifying_key())
        );
    }

    #[test]
    fn the_private_pem_is_read_back() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let pem = private_pem(&key);
        let back = SigningKey::from_pkcs8_pem(pem.as_ref()).expect("our own encoding");
        assert_eq!(back.to_bytes(), key.to_bytes());
    }
}
