//! JWTs: confused algorithms, keys from elsewhere, and claims that contradict.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::{Attack, Attacker, claims, named};
use crate::tokens::{Format, Issuer};

/// Public keys from documents; their private keys are unknown here.
pub(super) const RSA_N: &str = "vm0cJRTe_qq7Bb1FiESWK-lfruy78b4l24zfk8nBvV1RSK7SS0tKixWIP5-0PqcgikQuG1mKkBpTCQUnthiGejeBRMFBIyMZqSmxYxd1a858bzyf-spojxrU9V904N4bR0SGvb0K8I78x29GGThh2wFtUJJEKYZru2bX68KQCy_-YsCa9gNwzKpnhMoEGDBU_vVMzJCFv4lRg1uNyb1YhYI8Bqgmu7YVMY6VMThflOeyOIKarOnEXkNgq3Z74K8DpzEbKnRoUyP0A5JPp49Ut6i7DDA8tj4zSXm8eYKAAzXON-QsvPKGzRV4a8AdGGULmuv5CMA0DNR58lBnHL9awQ";
/// RFC 7515, A.3.
pub(super) const P256: [&str; 2] = [
    "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
];

/// A payload with the role admin.
fn admin() -> Value {
    json!({"user_id": 7, "role": "admin", "iss": "returns-dev", "aud": "returns-api", "exp": 4_000_000_000_u64})
}

fn part(text: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

impl Attacker<'_> {
    fn payload(&self) -> &str {
        self.jwt.split('.').nth(1).expect("three parts")
    }

    fn signature(&self) -> &str {
        self.jwt.split('.').nth(2).expect("three parts")
    }

    /// The valid token's payload with the attacker's header, and with the valid token's signature or none.
    fn under(&self, header: &Value, signature: &str) -> String {
        format!(
            "{}.{}.{signature}",
            part(header.to_string()),
            self.payload()
        )
    }

    /// Signed with a public secret.
    fn keyed(&self, kid: &str, secret: &[u8]) -> String {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(kid.to_owned());
        encode(&header, &admin(), &EncodingKey::from_secret(secret)).expect("sign")
    }

    pub(super) fn jwts(&self) -> Vec<Attack> {
        [
            self.without_algorithm(),
            self.public_keys_as_secrets(),
            self.other_algorithms(),
            self.other_keys(),
            self.odd_headers(),
            self.forged_claims(),
        ]
        .concat()
    }

    fn without_algorithm(&self) -> Vec<Attack> {
        let mut attacks = Vec::new();
        for alg in ["none", "None", "NONE", "nOnE", ""] {
            let header = json!({"typ": "JWT", "alg": alg, "kid": self.issuer.jwt_kid()});
            for (what, signature) in [
                ("without signature", ""),
                ("with a signature", self.signature()),
            ] {
                attacks.push(named(
                    format!("alg {alg:?} {what}"),
                    self.under(&header, signature),
                    "malformed",
                ));
            }
        }
        attacks
    }

    /// A verifier that trusts the token's `alg` would check an HMAC with the public key.
    fn public_keys_as_secrets(&self) -> Vec<Attack> {
        let kid = self.issuer.jwt_kid();
        let jwk = self.issuer.public_keys()[0].clone();
        let x = jwk["x"].as_str().expect("a key");
        let raw = BASE64_URL_SAFE_NO_PAD.decode(x).expect("a key");
        let der = [
            &b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..],
            &raw,
        ]
        .concat();
        let pem = |der: &[u8]| {
            let text = BASE64_STANDARD.encode(der);
            format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n").into_bytes()
        };
        let rsa = BASE64_URL_SAFE_NO_PAD.decode(RSA_N).expect("a key");
        let rsa_der = [
            &b"\x30\x82\x01\x0a\x02\x82\x01\x01\x00"[..],
            &rsa,
            b"\x02\x03\x01\x00\x01",
        ]
        .concat();
        [
            (&*kid, "the Ed25519 key's bytes", raw),
            (&kid, "the Ed25519 key's x", x.into()),
            (&kid, "the Ed25519 key's JWK", jwk.to_string().into()),
            (&kid, "the Ed25519 key's PEM", pem(&der)),
            (&kid, "the Ed25519 key's DER", der),
            ("rsa", "the RSA key's n", RSA_N.into()),
            ("rsa", "the RSA key's PEM", pem(&rsa_der)),
            ("rsa", "the RSA key's DER", rsa_der),
            ("rsa", "the bytes of the RSA key's n", rsa),
            ("rsa", "an empty secret", Vec::new()),
            ("ec", "the P-256 key's x", P256[0].into()),
        ]
        .map(|(kid, what, secret)| {
            named(
                format!("HS256 with {what}"),
                self.keyed(kid, &secret),
                "algorithm",
            )
        })
        .into()
    }

    fn other_algorithms(&self) -> Vec<Attack> {
        let ours = &*self.issuer.jwt_kid();
        let mut attacks = Vec::new();
        for (alg, kid) in [
            ("RS256", ours),
            ("ES256", ours),
            ("HS512", ours),
            ("EdDSA", "rsa"),
            ("EdDSA", "ec"),
            ("PS256", "rsa"),
            ("RS512", "rsa"),
            ("ES384", "ec"),
        ] {
            let header = json!({"alg": alg, "kid": kid});
            attacks.push(named(
                format!("{alg} under {kid}"),
                self.under(&header, self.signature()),
                "algorithm",
            ));
        }
        // Some verifiers accepted zeros as an ECDSA signature (CVE-2022-21449).
        for (alg, kid, length) in [
            ("EdDSA", ours, 64),
            ("ES256", "ec", 64),
            ("RS256", "rsa", 256),
            ("EdDSA", ours, 0),
            ("ES256", "ec", 0),
            ("RS256", "rsa", 0),
        ] {
            let header = json!({"alg": alg, "kid": kid});
            let token = self.under(&header, &part(vec![0; length]));
            attacks.push(named(
                format!("{alg} with {length} zeros as signature"),
                token,
                "signature",
            ));
        }
        attacks
    }

    /// A `kid` names only our keys; a key inside the token is ignored.
    fn other_keys(&self) -> Vec<Attack> {
        let mut attacks = Vec::new();
        for kid in [
            "../../x",
            "../../../../dev/null",
            "/dev/null",
            "file:///etc/passwd",
            "https://evil.example/jwks.json",
            "' OR '1'='1",
            "x'; DROP TABLE returns; --",
            "jwt-1\0",
            "JWT-1",
            "jwt-1 ",
            "",
            "0",
            "1",
            &"k".repeat(2000),
        ] {
            let header = json!({"alg": "EdDSA", "kid": kid});
            attacks.push(named(
                format!("kid {kid:.40}"),
                self.under(&header, self.signature()),
                "unknown_key",
            ));
        }
        for (name, value) in [
            ("jku", json!("https://evil.example/jwks.json")),
            ("jwk", Issuer::new(1).public_keys()[0].clone()),
            ("x5u", json!("https://evil.example/cert.pem")),
            ("x5c", json!(["MIIB"])),
            ("crit", json!(["b64"])),
            ("typ", json!("secevent+jwt")),
        ] {
            let mut header = json!({"alg": "EdDSA", "kid": self.issuer.jwt_kid()});
            header[name] = value;
            attacks.push(named(
                format!("header {name}"),
                self.under(&header, self.signature()),
                "header",
            ));
        }
        attacks
    }

    fn odd_headers(&self) -> Vec<Attack> {
        let deep = format!(r#"{{"alg":"EdDSA","kid":"jwt-1","x":{}"#, "[".repeat(1800));
        [
            ("deeply nested", &*deep),
            (
                "two algorithms",
                r#"{"alg":"none","alg":"EdDSA","kid":"jwt-1"}"#,
            ),
            ("no JSON", "alg=EdDSA"),
            ("a list", r#"["EdDSA"]"#),
            ("no algorithm", r#"{"typ":"JWT"}"#),
            ("empty", ""),
        ]
        .map(|(what, header)| {
            let token = format!("{}.{}.{}", part(header), self.payload(), self.signature());
            named(format!("header {what}"), token, "malformed")
        })
        .into()
    }

    /// Mostly signed by the issuer: its mistakes must be refused.
    fn forged_claims(&self) -> Vec<Attack> {
        let with = |claim: &str, value: Value| {
            let mut claims = claims();
            claims[claim] = value;
            self.issuer.mint_as(Format::Jwt, claims)
        };
        let admin = part(admin().to_string());
        let header = self.jwt.split('.').next().expect("three parts");
        let raw = |payload: &str| self.issuer.jwt_of_text(payload);
        let good = r#""iss":"returns-dev","aud":"returns-api","exp":4000000000,"user_id":42"#;
        vec![
            named(
                "another payload",
                format!("{header}.{admin}.{}", self.signature()),
                "signature",
            ),
            named(
                "no signature",
                format!("{header}.{}.", self.payload()),
                "signature",
            ),
            named("expired", with("exp", json!(1)), "time"),
            named("expired before 1970", with("exp", json!(-1)), "claims"),
            named(
                "not yet valid",
                with("nbf", json!(4_000_000_000_u64)),
                "time",
            ),
            named(
                "issued in the future",
                with("iat", json!(4_000_000_000_u64)),
                "not_honored",
            ),
            named("no end", with("exp", Value::Null), "malformed"),
            named(
                "an end as text",
                with("exp", json!("4000000000")),
                "malformed",
            ),
            named("wrong audience", with("aud", json!("else")), "not_for_us"),
            named(
                "wrong audiences",
                with("aud", json!(["else", "returns-api2"])),
                "not_for_us",
            ),
            named("no audience", with("aud", Value::Null), "claims"),
            named(
                "wrong issuer",
                with("iss", json!("returns-dev/")),
                "not_for_us",
            ),
            named("no issuer", with("iss", Value::Null), "claims"),
            named(
                "two roles",
                raw(&format!(r#"{{{good},"role":"customer","role":"admin"}}"#)),
                "malformed",
            ),
            named(
                "two users",
                raw(&format!(r#"{{{good},"role":"customer","user_id":43}}"#)),
                "malformed",
            ),
            named(
                "two ends",
                raw(&format!(r#"{{{good},"role":"customer","exp":1}}"#)),
                "malformed",
            ),
            named("user and subject", with("sub", json!("43")), "claims"),
            named(
                "roles",
                with("role", json!(["customer", "admin"])),
                "malformed",
            ),
            named("unknown role", with("role", json!("root")), "malformed"),
            named("user zero", with("user_id", json!(0)), "claims"),
            named("user below zero", with("user_id", json!(-42)), "claims"),
            named(
                "a user too large",
                with("user_id", json!(u64::MAX)),
                "malformed",
            ),
            named("a list of claims", raw("[1,2]"), "malformed"),
            named("no JSON", raw("user_id=42"), "malformed"),
        ]
    }
}
