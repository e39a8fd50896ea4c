//! A private key, and the public key that belongs to it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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
use shared::auth::{KeyUse, Role};

use super::files::io_error;
use crate::error::CtlError;

/// A private key and the format of its tokens.
pub(crate) struct Signer {
    key: SigningKey,
    pub(super) key_use: KeyUse,
}

impl Signer {
    pub(super) fn generate(key_use: KeyUse) -> Self {
        let mut secret = [0; 32];
        rand::rng().fill_bytes(&mut secret);
        Self {
            key: SigningKey::from_bytes(&secret),
            key_use,
        }
    }

    /// The id follows from the key, so that no file has to keep it. It is the beginning of SHA-256 over the 32 bytes of
    /// the public key: 16 hex digits for JWTs; four bytes for Biscuits, whose ids are numbers of 32 bits.
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

    /// PKCS #8 version 1, without the public key: jsonwebtoken and OpenSSL 1.1.1 read only this.
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

    /// The public key (RFC 8037), with the roles that its tokens may have, if not all.
    pub(super) fn jwk(&self, roles: &[Role]) -> Value {
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
        // Without the source: its text could quote the key.
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
    fn a_key_is_named_by_the_hash_of_its_public_key() {
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
