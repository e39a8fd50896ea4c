//! A key pair for one run and a token per customer.

use std::path::Path;

use anyhow::Context;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{EncodePrivateKey, EncodePublicKey};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::json;
use tempfile::NamedTempFile;

pub(crate) struct Keys {
    private: EncodingKey,
    public: NamedTempFile,
}

impl Keys {
    pub(crate) fn generate() -> anyhow::Result<Self> {
        let key = SigningKey::from_bytes(&rand::random());
        let private = key.to_pkcs8_pem(LineEnding::LF).context("encode key")?;
        let public = NamedTempFile::new()?;
        std::fs::write(
            public.path(),
            key.verifying_key()
                .to_public_key_pem(LineEnding::LF)
                .context("encode key")?,
        )?;
        Ok(Self {
            private: EncodingKey::from_ed_pem(private.as_bytes())?,
            public,
        })
    }

    pub(crate) fn public_key_file(&self) -> &Path {
        self.public.path()
    }

    /// A customer's token, valid for an hour.
    pub(crate) fn mint(&self, user: i64) -> anyhow::Result<String> {
        let claims = json!({
            "user_id": user,
            "role": "customer",
            "iss": "returns-dev",
            "aud": "returns-api",
            "exp": get_current_timestamp() + 3600,
        });
        Ok(encode(
            &Header::new(Algorithm::EdDSA),
            &claims,
            &self.private,
        )?)
    }
}
