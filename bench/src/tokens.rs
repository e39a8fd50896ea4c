//! Keys for one run, and tokens of customers of each kind.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use biscuit_auth::builder::{Algorithm as RootAlgorithm, BlockBuilder, Term, fact, string};
use biscuit_auth::macros::check;
use biscuit_auth::{Biscuit, KeyPair, PrivateKey};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::json;
use tempfile::NamedTempFile;

/// How a token is written and signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    JwtEdDsa,
    JwtHs256,
    Biscuit,
    /// Narrowed to reading one return for one hour: two blocks, sealed.
    NarrowedBiscuit,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [
        Self::JwtEdDsa,
        Self::JwtHs256,
        Self::Biscuit,
        Self::NarrowedBiscuit,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::JwtEdDsa => "JWT EdDSA",
            Self::JwtHs256 => "JWT HS256",
            Self::Biscuit => "Biscuit, 1 block",
            Self::NarrowedBiscuit => "Biscuit, narrowed and sealed",
        }
    }
}

pub(crate) struct Keys {
    eddsa: EncodingKey,
    hs256: EncodingKey,
    root: KeyPair,
    set: NamedTempFile,
}

const HOUR: Duration = Duration::from_secs(3600);

impl Keys {
    pub(crate) fn generate() -> anyhow::Result<Self> {
        let jwt = SigningKey::from_bytes(&rand::random());
        let root = SigningKey::from_bytes(&rand::random());
        let secret: [u8; 32] = rand::random();
        let okp = |key: &SigningKey, kid, key_use| {
            json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "use": key_use,
                   "x": BASE64_URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes())})
        };
        let keys = json!({"keys": [
            okp(&jwt, "eddsa", "sig"),
            {"kty": "oct", "kid": "hs256", "k": BASE64_URL_SAFE_NO_PAD.encode(secret)},
            okp(&root, "1", "biscuit"),
        ]});
        // Readable by its owner only, as the api requires of a secret.
        let set = NamedTempFile::new()?;
        std::fs::write(set.path(), keys.to_string())?;
        let pem = jwt.to_pkcs8_pem(LineEnding::LF)?;
        let private = PrivateKey::from_bytes(&root.to_bytes(), RootAlgorithm::Ed25519)?;
        Ok(Self {
            eddsa: EncodingKey::from_ed_pem(pem.as_bytes())?,
            hs256: EncodingKey::from_secret(&secret),
            root: KeyPair::from(&private),
            set,
        })
    }

    /// The JWK set that verifies them.
    pub(crate) fn file(&self) -> &Path {
        self.set.path()
    }

    /// A customer's token, valid for an hour; a narrowed one is about return `id`.
    pub(crate) fn mint(&self, kind: Kind, user: i64, id: i64) -> anyhow::Result<String> {
        match kind {
            Kind::JwtEdDsa => jwt(Algorithm::EdDSA, "eddsa", &self.eddsa, user, "customer"),
            Kind::JwtHs256 => jwt(Algorithm::HS256, "hs256", &self.hs256, user, "customer"),
            Kind::Biscuit => Ok(self.biscuit(user)?.to_base64()?),
            Kind::NarrowedBiscuit => {
                let end = now() + HOUR;
                let narrow = BlockBuilder::new()
                    .check(check!(r#"check if resource("return", {id})"#))?
                    .check(check!(r#"check if access("read")"#))?
                    .check(check!("check if time($now), $now < {end}"))?;
                Ok(self.biscuit(user)?.append(narrow)?.seal()?.to_base64()?)
            }
        }
    }

    /// A token of an admin, valid for an hour.
    pub(crate) fn admin(&self) -> anyhow::Result<String> {
        jwt(Algorithm::EdDSA, "eddsa", &self.eddsa, 7, "admin")
    }

    fn biscuit(&self, user: i64) -> anyhow::Result<Biscuit> {
        let now = now();
        let facts = [
            ("user", Term::Integer(user)),
            ("role", string("customer")),
            ("audience", string("returns-api")),
            ("issued_at", now.into()),
            ("expires_at", (now + HOUR).into()),
        ];
        let builder = facts
            .into_iter()
            .try_fold(Biscuit::builder(), |builder, (name, term)| {
                builder.fact(fact(name, &[term]))
            })?;
        Ok(builder.root_key_id(1).build(&self.root)?)
    }
}

/// In whole seconds, like all times in tokens.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(get_current_timestamp())
}

fn jwt(
    algorithm: Algorithm,
    kid: &str,
    key: &EncodingKey,
    user: i64,
    role: &str,
) -> anyhow::Result<String> {
    let claims = json!({
        "user_id": user,
        "role": role,
        "iss": "returns-dev",
        "aud": "returns-api",
        "exp": get_current_timestamp() + HOUR.as_secs(),
    });
    let header = Header {
        kid: Some(kid.to_owned()),
        ..Header::new(algorithm)
    };
    Ok(encode(&header, &claims, key)?)
}
