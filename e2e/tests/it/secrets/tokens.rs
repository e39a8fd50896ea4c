//! Valid tokens with personal data, and invalid ones with a canary in the part that an error message might quote.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use biscuit_auth::builder::BlockBuilder;
use biscuit_auth::{Biscuit, KeyPair, UnverifiedBiscuit};
use e2e::secrets::{Secrets, register};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};

use super::{canary, personal};

/// Signs tokens as the shop does at login.
pub(crate) struct Shop<'a>(pub(crate) &'a str);

impl Shop<'_> {
    /// A customer's token whose id and an additional claim are personal data.
    pub(crate) fn token(&self, id: &str) -> anyhow::Result<String> {
        self.with(&[("jti", json!(id)), ("email", json!(personal("email")))])
    }

    /// A token of the system's customer; these claims are added or replace the usual ones.
    fn with(&self, claims: &[(&str, Value)]) -> anyhow::Result<String> {
        let header = Header {
            kid: Some("shop".to_owned()),
            ..Header::new(Algorithm::HS256)
        };
        signed(&header, claims, self.0)
    }

    /// Invalid tokens. Each contains a canary that a careless error message would repeat.
    pub(crate) fn bad(&self, biscuit: &str) -> anyhow::Result<Vec<String>> {
        let word = || json!(personal("bad-token"));
        let now = get_current_timestamp();
        let header = |name: &str| -> anyhow::Result<String> {
            let mut header = json!({ "alg": "HS256", "typ": "JWT", "kid": "shop" });
            header[name] = if name == "crit" {
                json!([word()])
            } else {
                word()
            };
            let body = BASE64_URL_SAFE_NO_PAD.encode(json!({ "jti": word() }).to_string());
            let header = BASE64_URL_SAFE_NO_PAD.encode(header.to_string());
            Ok(format!("{header}.{body}.{}", canary("signature")))
        };
        let mut bad = vec![
            canary("neither"),
            format!("{}.{}.{}", canary("a"), canary("b"), canary("c")),
            format!("..{}", canary("dots")),
            "x".repeat(4_000) + &canary("long"),
            header("alg")?,
            header("typ")?,
            header("kid")?,
            header("crit")?,
            header("jku")?,
            header("enc")?,
        ];
        for claim in ["role", "user_id", "exp", "iat", "nbf", "iss", "aud"] {
            bad.push(self.with(&[(claim, word())])?);
        }
        bad.push(self.with(&[("exp", json!(now - 3_600)), ("email", word())])?);
        bad.push(self.with(&[("nbf", json!(now + 3_600)), ("email", word())])?);
        bad.push(Shop(&canary("another-shop")).with(&[("email", word())])?);
        let good = self.with(&[("email", word())])?;
        bad.push(good.replace('.', ".A"));
        bad.extend(bad_biscuits(biscuit)?);
        for token in &bad {
            register(Secrets::one("a bad token", token));
        }
        Ok(bad)
    }
}

fn signed(header: &Header, claims: &[(&str, Value)], secret: &str) -> anyhow::Result<String> {
    let now = get_current_timestamp();
    let mut all = json!({
        "user_id": 42, "sub": "42", "role": "customer", "iss": "returns-dev", "aud": "returns-api",
        "iat": now, "exp": now + 3_600,
    });
    for (name, value) in claims {
        all[*name] = value.clone();
    }
    let key = EncodingKey::from_secret(secret.as_bytes());
    Ok(encode(header, &all, &key)?)
}

/// A token that its holder narrowed so that it fits no request.
pub(crate) fn useless(biscuit: &str) -> anyhow::Result<String> {
    let check = format!(r#"check if user("{}")"#, personal("check"));
    append(biscuit, check)
}

fn append(biscuit: &str, code: String) -> anyhow::Result<String> {
    let block = BlockBuilder::new().code(code)?;
    let token = UnverifiedBiscuit::from_base64(biscuit)?;
    Ok(token.append(block)?.to_base64()?)
}

fn bad_biscuits(good: &str) -> anyhow::Result<Vec<String>> {
    let word = || personal("bad-biscuit");
    let append = |code| append(good, code);
    let foreign = Biscuit::builder()
        .code(format!(
            r#"user(42); role("customer"); token_id("{}")"#,
            word()
        ))?
        .build(&KeyPair::new())?;
    let mut broken = good.to_owned();
    broken.truncate(good.len() - 24);
    Ok(vec![
        append(format!(r#"email("{}")"#, word()))?,
        append(format!(
            r#"check if time($now), $now.matches("{}")"#,
            word()
        ))?,
        // The holder's block causes a type error during the decision.
        append(format!(r#"check if 1 < "{}""#, word()))?,
        foreign.to_base64()?,
        broken,
    ])
}
