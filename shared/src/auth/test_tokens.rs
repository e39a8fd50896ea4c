//! Keys of every kind from fixed bytes, and tokens as issuers sign them, for the tests of this module.

use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use biscuit_auth::builder::{Algorithm as RootAlgorithm, BlockBuilder};
use biscuit_auth::{Biscuit, BiscuitBuilder, KeyPair, PrivateKey};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{AuthArgs, KeyError, Verifier};

pub(super) const LEEWAY: u64 = 30;

pub(super) fn args(auth_keys_file: PathBuf) -> AuthArgs {
    AuthArgs {
        auth_keys_file,
        auth_issuer: "shop".to_owned(),
        auth_audience: "returns".to_owned(),
        auth_leeway_secs: LEEWAY,
        auth_token_max_bytes: 16 * 1024,
    }
}

/// A verifier with these JWKs only. Nobody else can read the file, as with all temporary files.
pub(super) fn load(keys: &[Value]) -> Result<Verifier, KeyError> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), json!({ "keys": keys }).to_string()).expect("write");
    Verifier::load(&args(file.path().to_owned()))
}

pub(super) fn verifier(keys: &[Value]) -> Verifier {
    load(keys).expect("good keys")
}

/// Signs JWTs, as the login of a shop does.
pub(super) struct JwtIssuer {
    pub(super) algorithm: Algorithm,
    pub(super) kid: String,
    pub(super) key: EncodingKey,
}

impl JwtIssuer {
    pub(super) fn eddsa(kid: &str, seed: u8) -> Self {
        // PKCS #8 is these bytes and the secret.
        let der = [
            &hex_bytes("302e020100300506032b657004220420"),
            &[seed; 32][..],
        ]
        .concat();
        Self::new(Algorithm::EdDSA, kid, EncodingKey::from_ed_der(&der))
    }

    pub(super) fn es256(kid: &str, seed: u8) -> Self {
        let head = "3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420";
        let der = [&hex_bytes(head), &[seed; 32][..]].concat();
        Self::new(Algorithm::ES256, kid, EncodingKey::from_ec_der(&der))
    }

    pub(super) fn rs256(kid: &str) -> Self {
        let der = BASE64_STANDARD.decode(RSA).expect("base64");
        Self::new(Algorithm::RS256, kid, EncodingKey::from_rsa_der(&der))
    }

    pub(super) fn hs256(kid: &str, seed: u8) -> Self {
        Self::new(Algorithm::HS256, kid, EncodingKey::from_secret(&[seed; 32]))
    }

    /// One of each algorithm.
    pub(super) fn all() -> [Self; 4] {
        [
            Self::eddsa("ed", 7),
            Self::es256("es", 7),
            Self::rs256("rs"),
            Self::hs256("hs", 7),
        ]
    }

    fn new(algorithm: Algorithm, kid: &str, key: EncodingKey) -> Self {
        Self {
            algorithm,
            kid: kid.to_owned(),
            key,
        }
    }

    /// The public half.
    pub(super) fn jwk(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.key, self.algorithm).expect("a good key");
        let mut jwk = serde_json::to_value(jwk).expect("plain data");
        jwk["kid"] = json!(self.kid);
        jwk
    }

    pub(super) fn header(&self) -> Header {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.kid.clone());
        header
    }

    /// A good token, except for the changed claims.
    pub(super) fn token(&self, changed: &Value) -> String {
        self.sign(&self.header(), changed)
    }

    pub(super) fn sign(&self, header: &Header, changed: &Value) -> String {
        encode(header, &claims(changed), &self.key).expect("signs")
    }
}

pub(super) fn claims(changed: &Value) -> Value {
    let now = get_current_timestamp();
    let mut claims = json!({
        "user_id": 7, "role": "customer", "iss": "shop", "aud": "returns",
        "iat": now - 60, "nbf": now - 60, "exp": now + 600, "jti": "t-1",
    });
    for (name, value) in changed.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims
}

/// Signs Biscuits.
pub(super) struct Root {
    pub(super) number: u32,
    pub(super) pair: KeyPair,
}

impl Root {
    pub(super) fn new(number: u32, seed: u8) -> Self {
        let secret = PrivateKey::from_bytes(&[seed; 32], RootAlgorithm::Ed25519);
        Self {
            number,
            pair: KeyPair::from(&secret.expect("32 bytes")),
        }
    }

    pub(super) fn jwk(&self) -> Value {
        let x = BASE64_URL_SAFE_NO_PAD.encode(self.pair.public().to_bytes());
        json!({"kty": "OKP", "crv": "Ed25519", "use": "biscuit", "kid": self.number.to_string(), "x": x})
    }

    /// A Biscuit with these facts, see [`issuer_facts`].
    pub(super) fn biscuit(&self, datalog: &str) -> Biscuit {
        self.build(BiscuitBuilder::new().root_key_id(self.number), datalog)
    }

    pub(super) fn build(&self, builder: BiscuitBuilder, datalog: &str) -> Biscuit {
        let builder = builder.code(datalog).expect("good Datalog");
        builder.build(&self.pair).expect("signs")
    }
}

/// The facts of an issuer about customer 7. Changed facts replace the usual ones, and `""` removes one.
pub(super) fn issuer_facts(changed: &[(&str, &str)]) -> String {
    let now = get_current_timestamp();
    let (begin, end) = (date(now - 60), date(now + 600));
    let usual = [
        ("user", "7"),
        ("role", r#""customer""#),
        ("audience", r#""returns""#),
        ("issuer", r#""shop""#),
        ("issued_at", &begin),
        ("expires_at", &end),
        ("token_id", r#""t-1""#),
    ];
    let kept = usual
        .into_iter()
        .filter(|(name, _)| changed.iter().all(|(other, _)| other != name));
    kept.chain(changed.iter().copied())
        .filter(|(_, term)| !term.is_empty())
        .map(|(name, term)| format!("{name}({term});\n"))
        .collect()
}

/// A time, in Unix seconds, as Datalog writes it.
pub(super) fn date(unix_secs: u64) -> String {
    let secs = i64::try_from(unix_secs).expect("near");
    let at = OffsetDateTime::from_unix_timestamp(secs).expect("near");
    at.format(&Rfc3339).expect("a year of four digits")
}

/// The token with a block of its holder.
pub(super) fn append(token: &Biscuit, datalog: &str) -> Biscuit {
    let block = BlockBuilder::new().code(datalog).expect("good Datalog");
    token.append(block).expect("not sealed")
}

pub(super) fn text(token: &Biscuit) -> String {
    token.to_base64().expect("encodes")
}

fn hex_bytes(digits: &str) -> Vec<u8> {
    hex::decode(digits).expect("hexadecimal digits")
}

/// PKCS #1, for tests only. It is written out because an RSA key cannot be made from fixed bytes.
const RSA: &str = "\
    MIIEpQIBAAKCAQEAxtrM200eN6B8Shak3yDuqo8bq/eyTqk6zNp+JdpTxYH8PkTfvAJsus5tZjOZ7jU8ufBl0WJ2ij8fqnp/yWk5\
    awK1aEQbG1ZTKfNStmKNicKvcE6DIZveLJDra4DWsa3SajVbz7H8cDR0jC2QYKeTZIKVdO0+r0Ex08HoIT8pplP5kUPIo9ULzDiW\
    wqSEGMyoGxSnePulrta03lZBzVBEbqpOq54NX2OuciH4W34EslPvzeOdhcIbGZbFrA43Hj0fsEnXbS9nMYSVgjNACGf4OiytS4NT\
    kKdS2egC0zMVk2o9LFez/BcJ8+3PvZL3MxgRvOX8luazFSkyb04MmQDFAwIDAQABAoIBAEiMbwzbV9jnnjDRjhkxxKFJUMkut0jn\
    iOJQHJHm04VNZR+6tP28zLpisZsF3HUBy0PzJtJ7X9AUM5NY2eI7l40pEdIWduVEW1cExPpxfj3yX1tT6ZeLbEVKIfm4qZttVUUW\
    boaZ4wV0vcienvwEZ0vWMHzWSXZbDLi7F9t5VdKuT34dcUB5hNKPPAYr16ZcQcwuRTrQun73tNzydbFM48meKKuLTpXMKbdFMQ7F\
    KL3LPAlKMuf+LDyu87zeylvxxhfIwAbcvE8P4XCSEKl47qW6tzxujn05t2Sn2jbgAeO5MU7mwpCCdTFjcos7NyD9gbSUJiV/1pex\
    QEar7hUNaSECgYEA8AYhrYPcQKUjRGPqqHB7dKCTLxPwWtvv7fTAXVhNm8AR+xtRTE2li8lz5TMHL5ww2ZjN0YSzYrIw6mQwBprj\
    d4KzHdk3hmRqTBvAkJInvjLwf6u9Q2KC5xg+KdN+L6GTct9TwWTkvnXa0OtxeQ851ZeSM7e5dqdbippX6W95r/kCgYEA1BcrG0EX\
    KmZRMCLP5QNY+PjH/eAsRtKe9R22q3pbiQb4PCloVWPFNQQ2qzz0aDsTae3W5yeRrwP7qW6DjchzWlgg7jeEd68OrNccRKfZZamD\
    sH3xPqD1wQWIBrWMgQDyCet0RJHf++vKclyNF6b6G6kQxgyH6/ugpPwU/IAF09sCgYEAsgEqGr+uqXaO2BptnauFszGe1gwodYmk\
    v0mDG/bv33ErJJnWygrPmgK146XbT3C7PbS39wk97BUQd9QDVfKqfSg95AYCyrVPq8/tGIp71O98MoLQItg9EluFRomljHd8nXWI\
    bOWBSsqmk8f4aHplPsVg1OANODTXi8v5JJLaoSkCgYEAmTRnOhfJ0SH58cij3m2NnsOvS+/cbAiHNM8S/kmzx4cWV/cdW9lnQkXZ\
    69ZrQsOx4WoiO/Y0YXWCHEEtnIS49wEEQLAv63i0JBx7WgjZnHtYGmzPkIsbGySQvy/z39g7/vhrk4DAiK0qH3RFo1lGACcfa8Dv\
    ioLI54UE7+TW0NMCgYEA6Pi16Ph2oo+dswnxq/AbHSIUBrst1C5qTl6A/BI9SW75wYUKdxFPu0JBsDDTII8+UkM47+YfPOwKPWcl\
    O+TRD8T0AjfQ44d6ry27e7oCXosJ52gwyMCGfqnpkjRRCloE/4IX6bV/pHPHzXhOk0FylIxzdV+gSCditoLwUJXo2Xg=";
