//! Keys of issuers, the file that the api reads, and tokens: valid ones, and tokens that holders derive.

use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::{BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
use biscuit_auth::builder::{BiscuitBuilder, BlockBuilder, Term, fact, string};
use biscuit_auth::format::schema;
use biscuit_auth::{Biscuit, KeyPair, UnverifiedBiscuit};
use ed25519_dalek::pkcs8::EncodePrivateKey;
use ed25519_dalek::{Signer, SigningKey};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use prost::Message;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The format of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Jwt,
    Biscuit,
}

impl Format {
    pub(crate) const ALL: [Self; 2] = [Self::Jwt, Self::Biscuit];
}

/// An issuer of tokens, with one key per format, both with this number.
pub(crate) struct Issuer {
    number: u32,
    jwt: SigningKey,
    pub(crate) root: KeyPair,
}

impl Issuer {
    pub(crate) fn new(number: u32) -> Self {
        Self {
            number,
            jwt: SigningKey::from_bytes(&rand::random()),
            root: KeyPair::new(),
        }
    }

    pub(crate) fn jwt_kid(&self) -> String {
        format!("jwt-{}", self.number)
    }

    /// The public keys that verify its tokens.
    pub(crate) fn public_keys(&self) -> [Value; 2] {
        let x = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        [
            json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": self.jwt_kid(),
                "x": x(self.jwt.verifying_key().as_bytes())}),
            json!({"kty": "OKP", "crv": "Ed25519", "use": "biscuit", "kid": self.number.to_string(),
                "x": x(&self.root.public().to_bytes())}),
        ]
    }

    /// Valid claims, changed by `claims` as in a JWT; `null` removes one.
    pub(crate) fn mint_as(&self, format: Format, claims: Value) -> String {
        match format {
            Format::Jwt => {
                let mut header = Header::new(Algorithm::EdDSA);
                header.kid = Some(self.jwt_kid());
                self.jwt(&header, claims)
            }
            Format::Biscuit => self.biscuit(claims).to_base64().expect("encode"),
        }
    }

    pub(crate) fn jwt(&self, header: &Header, claims: Value) -> String {
        let private = self.jwt.to_pkcs8_der().expect("a key");
        let key = EncodingKey::from_ed_der(private.as_bytes());
        encode(header, &with_good(claims), &key).expect("sign")
    }

    /// With this text as payload.
    pub(crate) fn jwt_of_text(&self, payload: &str) -> String {
        let header = json!({"alg": "EdDSA", "kid": self.jwt_kid()}).to_string();
        let [header, payload] =
            [header.as_str(), payload].map(|text| BASE64_URL_SAFE_NO_PAD.encode(text));
        let signed = format!("{header}.{payload}");
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.jwt.sign(signed.as_bytes()).to_bytes());
        format!("{signed}.{signature}")
    }

    pub(crate) fn biscuit(&self, claims: Value) -> Biscuit {
        self.biscuit_saying(claims, "")
    }

    /// With more Datalog in the issuer's own block.
    pub(crate) fn biscuit_saying(&self, claims: Value, more: &str) -> Biscuit {
        let mut builder = BiscuitBuilder::new().root_key_id(self.number);
        for (claim, value) in with_good(claims).as_object().expect("an object") {
            let (name, term) = said(claim, value);
            builder = builder.fact(fact(name, &[term])).expect("a fact");
        }
        let builder = builder.code(more).expect("Datalog");
        builder.build(&self.root).expect("sign")
    }
}

fn with_good(claims: Value) -> Value {
    let now = get_current_timestamp();
    let mut all = json!({"iss": "returns-dev", "aud": "returns-api", "iat": now, "exp": now + 600});
    let target = all.as_object_mut().expect("an object");
    for (name, value) in claims.as_object().expect("an object") {
        match value {
            Value::Null => target.remove(name),
            value => target.insert(name.clone(), value.clone()),
        };
    }
    all
}

/// A claim as a fact of a Biscuit.
fn said(claim: &str, value: &Value) -> (&'static str, Term) {
    let text = || string(value.as_str().expect("text"));
    let date = || Term::from(UNIX_EPOCH + Duration::from_secs(value.as_u64().expect("a time")));
    match claim {
        "user_id" => ("user", Term::Integer(value.as_i64().expect("a number"))),
        "role" => ("role", text()),
        "aud" => ("audience", text()),
        "iss" => ("issuer", text()),
        "jti" => ("token_id", text()),
        "iat" => ("issued_at", date()),
        "exp" => ("expires_at", date()),
        other => panic!("no Biscuit says {other}"),
    }
}

/// An issuer, and the key file that the api reads.
pub(crate) struct Keys {
    issuer: Issuer,
    dir: TempDir,
}

impl Keys {
    pub(crate) fn generate() -> Self {
        Self::of(Issuer::new(1))
    }

    /// A file with only this issuer's keys.
    pub(crate) fn of(issuer: Issuer) -> Self {
        let dir = TempDir::new().expect("a directory");
        let keys = Self { issuer, dir };
        keys.write(&[]);
        keys
    }

    pub(crate) fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("keys.json")
    }

    /// The keys of our issuer and of `others`.
    pub(crate) fn write(&self, others: &[&Issuer]) {
        let all: Vec<&Issuer> = std::iter::once(&self.issuer)
            .chain(others.iter().copied())
            .collect();
        self.write_only(&all);
    }

    /// The keys of `issuers`.
    pub(crate) fn write_only(&self, issuers: &[&Issuer]) {
        let keys: Vec<Value> = issuers
            .iter()
            .flat_map(|issuer| issuer.public_keys())
            .collect();
        self.write_text(&json!({ "keys": keys }).to_string());
    }

    /// Replaces the file by a rename, as the documentation asks operators to.
    pub(crate) fn write_text(&self, text: &str) {
        let new = self.dir.path().join("new");
        std::fs::write(&new, text).expect("write");
        std::fs::rename(&new, self.path()).expect("rename");
    }

    pub(crate) fn mint(&self, claims: Value) -> String {
        self.mint_as(Format::Jwt, claims)
    }

    pub(crate) fn mint_as(&self, format: Format, claims: Value) -> String {
        self.issuer.mint_as(format, claims)
    }

    pub(crate) fn mint_with_header(&self, header: &Header, claims: Value) -> String {
        self.issuer.jwt(header, claims)
    }
}

/// The Biscuit with one more block, which any holder can append.
pub(crate) fn attenuate(token: &str, datalog: &str) -> String {
    let token = UnverifiedBiscuit::from_base64(token).expect("a Biscuit");
    let block = BlockBuilder::new().code(datalog).expect("Datalog");
    let token = token.append(block).expect("append");
    token.to_base64().expect("encode")
}

/// The Biscuit with edited bytes, without a new signature.
pub(crate) fn edited(token: &str, edit: impl FnOnce(&mut schema::Biscuit)) -> String {
    let raw = BASE64_URL_SAFE.decode(token).expect("base64");
    let mut parts = schema::Biscuit::decode(&raw[..]).expect("a Biscuit");
    edit(&mut parts);
    BASE64_URL_SAFE.encode(parts.encode_to_vec())
}

/// The restriction for couriers.
pub(crate) const READ_ONLY: &str = r#"check if access("read")"#;
