//! JSON Web Tokens: EdDSA with one key, and every claim that jsonwebtoken does not check by default.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{AuthArgs, Caller, Role};
use crate::hex;

/// The longest token that is looked at.
pub const TOKEN_MAX: usize = 4096;
/// Clocks of issuer and verifier may differ by this much.
const LEEWAY_SECS: u64 = 30;

/// Checks a token's signature and claims.
pub struct Verifier {
    key: DecodingKey,
    key_sha256: String,
    validation: Validation,
}

/// Without the key: `Debug` of key material has leaked secrets before.
impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

/// The claims that identify a caller. A shop's login issues `user_id`, an identity provider `sub`.
#[derive(Deserialize)]
struct Claims {
    /// Seconds since 1970; may have a fraction (RFC 7519, "NumericDate").
    exp: f64,
    user_id: Option<UserId>,
    sub: Option<UserId>,
    role: Role,
    /// Of no meaning to us, so never a reason to refuse.
    jti: Option<Value>,
}

/// Shops write ids as numbers, identity providers as strings.
#[derive(Deserialize)]
#[serde(untagged)]
enum UserId {
    Number(i64),
    Text(String),
}

/// A caller and until when the token speaks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub caller: Caller,
    /// Unix seconds, leeway included.
    pub expires: u64,
    /// The token's own id, if it has one.
    pub jti: Option<String>,
}

/// The key that verifies tokens cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("JWT_PUBLIC_KEY_FILE {}: {reason}; it must be the PEM of an Ed25519 public key: `returnsctl token mint` makes a pair for development", .path.display())]
pub struct KeyError {
    pub path: PathBuf,
    pub reason: String,
}

/// Why a token was refused. Never repeats the token; not for who sent it over a network.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("longer than {TOKEN_MAX} bytes")]
    Length,
    #[error("malformed or not verifiable: {0}")]
    Token(#[from] jsonwebtoken::errors::Error),
    #[error("typ is not JWT or at+jwt")]
    Type,
    #[error("the header carries crit, jku, jwk, x5u or x5c")]
    ForeignHeader,
    #[error("user_id and sub are missing, differ, or are no positive number")]
    User,
}

impl Verifier {
    /// # Errors
    /// The key file cannot be read or holds no Ed25519 public key; the message says how to make one.
    pub fn load(args: &AuthArgs) -> Result<Self, KeyError> {
        let path = &args.jwt_public_key_file;
        let (key, key_sha256) = fs::read(path)
            .map_err(|error| error.to_string())
            .and_then(|pem| read_key(&pem).map_err(|error| error.to_string()))
            .map_err(|reason| KeyError {
                path: path.clone(),
                reason,
            })?;
        Ok(Self {
            key,
            key_sha256,
            validation: validation(args),
        })
    }

    /// SHA-256 over the 32 bytes of the public key, in hexadecimal digits: which key has verified.
    pub fn key_sha256(&self) -> &str {
        &self.key_sha256
    }

    /// # Errors
    /// Which check failed.
    pub fn verify(&self, token: &str) -> Result<Verified, Refused> {
        if token.len() > TOKEN_MAX {
            return Err(Refused::Length);
        }
        let header = decode_header(token)?;
        if !header
            .typ
            .as_deref()
            .is_none_or(|typ| ["JWT", "at+jwt"].contains(&typ))
        {
            return Err(Refused::Type);
        }
        // A critical extension that we do not know must not be ignored (RFC 7515, 4.1.11); a key that the token
        // brings along proves nothing.
        if header.jku.is_some()
            || header.jwk.is_some()
            || header.x5u.is_some()
            || header.x5c.is_some()
            || header.crit.is_some()
        {
            return Err(Refused::ForeignHeader);
        }
        let claims = decode::<Claims>(token, &self.key, &self.validation)?.claims;
        // What no clock reaches is verified each time.
        let expiry = Duration::try_from_secs_f64(claims.exp).unwrap_or_default();
        Ok(Verified {
            caller: Caller {
                user: claims.user()?,
                role: claims.role,
            },
            expires: expiry.as_secs().saturating_add(LEEWAY_SECS),
            jti: claims
                .jti
                .as_ref()
                .and_then(Value::as_str)
                .map(str::to_owned),
        })
    }
}

/// The key, and the digest of its bytes.
fn read_key(pem: &[u8]) -> Result<(DecodingKey, String), jsonwebtoken::errors::Error> {
    let key = DecodingKey::from_ed_pem(pem)?;
    let digest = hex::encode(&Sha256::digest(key.try_get_as_bytes()?));
    Ok((key, digest))
}

/// jsonwebtoken accepts a missing `aud` or `iss`, a future `nbf` and 60 s of leeway unless told otherwise.
fn validation(args: &AuthArgs) -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&[&args.jwt_audience]);
    validation.set_issuer(&[&args.jwt_issuer]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation.validate_nbf = true;
    validation.leeway = LEEWAY_SECS;
    validation
}

impl Claims {
    fn user(&self) -> Result<i64, Refused> {
        let number = |id: &Option<UserId>| id.as_ref().and_then(UserId::number);
        let (user_id, sub) = (number(&self.user_id), number(&self.sub));
        // A provider's opaque `sub` may stand beside the shop's number; two numbers must agree.
        if user_id.zip(sub).is_some_and(|(a, b)| a != b) {
            return Err(Refused::User);
        }
        match if self.user_id.is_some() { user_id } else { sub } {
            Some(id) if id > 0 => Ok(id),
            Some(_) | None => Err(Refused::User),
        }
    }
}

impl UserId {
    fn number(&self) -> Option<i64> {
        match self {
            Self::Number(id) => Some(*id),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD;
    use ed25519_dalek::SigningKey;
    use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
    use ed25519_dalek::pkcs8::{EncodePublicKey, KeypairBytes};
    use jsonwebtoken::errors::ErrorKind;
    use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
    use serde_json::{Value, json};

    use super::*;

    fn args(jwt_public_key_file: PathBuf) -> AuthArgs {
        AuthArgs {
            jwt_public_key_file,
            jwt_issuer: "shop".to_owned(),
            jwt_audience: "returns".to_owned(),
        }
    }

    fn verifier(key: &SigningKey) -> Verifier {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let pem = key.verifying_key().to_public_key_pem(LineEnding::LF);
        fs::write(file.path(), pem.expect("32 bytes always encode")).expect("write");
        Verifier::load(&args(file.path().to_owned())).expect("a key")
    }

    fn sign(key: &SigningKey, header: &Header, changed: Value) -> String {
        let now = get_current_timestamp();
        let mut claims = json!({
            "user_id": 7, "role": "admin", "iss": "shop", "aud": "returns", "nbf": now, "exp": now + 60
        });
        for (name, value) in changed.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        let pair = KeypairBytes {
            secret_key: key.to_bytes(),
            public_key: None,
        };
        let pem = ed25519_dalek::pkcs8::EncodePrivateKey::to_pkcs8_pem(&pair, LineEnding::LF)
            .expect("32 bytes always encode");
        let signer = EncodingKey::from_ed_pem(pem.as_bytes()).expect("our own encoding");
        encode(header, &claims, &signer).expect("signs")
    }

    #[test]
    fn a_good_token_tells_who_and_until_when() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let token = sign(&key, &Header::new(Algorithm::EdDSA), json!({}));
        let verified = verifier(&key).verify(&token).expect("good");
        let caller = Caller {
            user: 7,
            role: Role::Admin,
        };
        assert_eq!(verified.caller, caller);
        let left = verified.expires - get_current_timestamp();
        assert!((80..=90).contains(&left), "{left}");
    }

    /// Which of our checks refused it.
    fn refusal(refused: &Refused) -> String {
        match refused {
            Refused::Length => "length".to_owned(),
            Refused::Type => "type".to_owned(),
            Refused::ForeignHeader => "header".to_owned(),
            Refused::User => "user".to_owned(),
            Refused::Token(error) => match error.kind() {
                ErrorKind::MissingRequiredClaim(claim) => format!("no {claim}"),
                ErrorKind::Json(_) => "json".to_owned(),
                kind => format!("{kind:?}"),
            },
        }
    }

    #[test]
    fn every_claim_is_checked() {
        let (key, foreign) = (
            SigningKey::from_bytes(&[7; 32]),
            SigningKey::from_bytes(&[8; 32]),
        );
        let plain = Header::new(Algorithm::EdDSA);
        let past = get_current_timestamp() - LEEWAY_SECS - 1;
        let verifier = verifier(&key);
        let changed = |claims| sign(&key, &plain, claims);
        for (why, token) in [
            ("InvalidSignature", sign(&foreign, &plain, json!({}))),
            ("ExpiredSignature", changed(json!({"exp": past}))),
            ("json", changed(json!({"exp": null}))),
            (
                "ImmatureSignature",
                changed(json!({"nbf": 4_000_000_000_u64})),
            ),
            ("InvalidAudience", changed(json!({"aud": "else"}))),
            ("no aud", changed(json!({"aud": null}))),
            ("InvalidIssuer", changed(json!({"iss": "else"}))),
            ("no iss", changed(json!({"iss": null}))),
            ("json", changed(json!({"role": "root"}))),
            ("user", changed(json!({"user_id": null}))),
            ("user", changed(json!({"user_id": 0}))),
            ("user", changed(json!({"sub": "8"}))),
            ("user", changed(json!({"user_id": null, "sub": "auth0|7"}))),
            ("user", changed(json!({"user_id": "auth0|7", "sub": "7"}))),
            ("length", changed(json!({"x": "x".repeat(TOKEN_MAX)}))),
            ("InvalidToken", "a.b".to_owned()),
        ] {
            let refused = verifier.verify(&token).expect_err(why);
            assert_eq!(refusal(&refused), why, "{refused}");
        }
    }

    /// What the token says about its own signature counts for nothing.
    #[test]
    fn every_header_is_checked() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let verifier = verifier(&key);
        let own_key = json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"});
        for (why, name, value) in [
            ("type", "typ", json!("secevent+jwt")),
            ("header", "crit", json!(["b64"])),
            ("header", "jku", json!("https://evil.example/keys")),
            ("header", "jwk", own_key),
            ("header", "x5u", json!("https://evil.example/chain")),
            ("header", "x5c", json!(["AAAA"])),
        ] {
            let mut header = json!({"alg": "EdDSA", "typ": "JWT"});
            header[name] = value;
            let header: Header = serde_json::from_value(header).expect("a header");
            let refused = verifier
                .verify(&sign(&key, &header, json!({})))
                .expect_err(name);
            assert_eq!(refusal(&refused), why, "{name}");
        }
    }

    #[test]
    fn a_token_chooses_no_other_algorithm() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let verifier = verifier(&key);
        let good = sign(&key, &Header::new(Algorithm::EdDSA), json!({}));
        let claims = good.split('.').nth(1).expect("three parts");
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        for signature in ["", "AAAA"] {
            let token = format!("{none}.{claims}.{signature}");
            let refused = verifier.verify(&token).expect_err("unsigned");
            assert_eq!(refusal(&refused), "json", "there is no such algorithm");
        }
        // The public key is no secret, so anyone could sign with it.
        let public = key.verifying_key().to_bytes();
        let pem = key.verifying_key().to_public_key_pem(LineEnding::LF);
        for secret in [&public[..], pem.expect("32 bytes always encode").as_bytes()] {
            let claims: Value = jsonwebtoken::dangerous::insecure_decode(&good)
                .expect("claims")
                .claims;
            let header = Header::new(Algorithm::HS256);
            let token = encode(&header, &claims, &EncodingKey::from_secret(secret));
            let refused = verifier.verify(&token.expect("signs")).expect_err("HS256");
            assert_eq!(refusal(&refused), "InvalidAlgorithm");
        }
    }

    /// A shop's number goes before a provider's opaque name; a number alone counts under either claim.
    #[test]
    fn a_user_is_the_number_under_either_claim() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let verifier = verifier(&key);
        for claims in [
            json!({"user_id": 7}),
            json!({"user_id": "7"}),
            json!({"user_id": null, "sub": "7"}),
            json!({"user_id": null, "sub": 7}),
            json!({"user_id": 7, "sub": "7"}),
            json!({"user_id": 7, "sub": "auth0|x"}),
        ] {
            let token = sign(&key, &Header::new(Algorithm::EdDSA), claims.clone());
            let verified = verifier.verify(&token).expect("good");
            assert_eq!(verified.caller.user, 7, "{claims}");
        }
    }

    #[test]
    fn a_token_and_its_key_can_be_told_apart_later() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let verifier = verifier(&key);
        let public = key.verifying_key().to_bytes();
        assert_eq!(verifier.key_sha256(), hex::encode(&Sha256::digest(public)));
        for (jti, told) in [
            (json!("t-1"), Some("t-1")),
            (json!(5), None),
            (json!(null), None),
        ] {
            let token = sign(&key, &Header::new(Algorithm::EdDSA), json!({"jti": jti}));
            let verified = verifier.verify(&token).expect("good");
            assert_eq!(verified.jti.as_deref(), told, "{jti}");
        }
    }

    #[test]
    fn p13_a_refusal_does_not_repeat_the_token() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let refused = verifier(&key)
            .verify("s3cret.s3cret.s3cret")
            .expect_err("bad");
        assert!(!format!("{refused} {refused:?}").contains("s3cret"));
    }

    #[test]
    fn a_key_that_cannot_be_read_is_told_with_its_path() {
        let error = Verifier::load(&args("/no/such/key".into())).expect_err("absent");
        assert!(error.to_string().contains("/no/such/key"), "{error}");
    }
}
