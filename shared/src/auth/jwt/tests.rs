use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, EncodingKey, encode, get_current_timestamp};
use serde_json::{Value, json};

use super::super::revocation::TOKEN_ID_MAX;
use super::super::test_tokens::{JwtIssuer, LEEWAY, Root, claims, verifier};
use super::super::{TOKEN_MAX, Verified, Verifier};
use super::*;

/// The check that refused the token.
fn refusal(refused: &TokenError) -> String {
    match refused {
        TokenError::Length => "length".to_owned(),
        TokenError::Type => "type".to_owned(),
        TokenError::ForeignHeader => "header".to_owned(),
        TokenError::UnknownKey => "key".to_owned(),
        TokenError::User => "user".to_owned(),
        TokenError::Jwt(error) => match error.kind() {
            ErrorKind::MissingRequiredClaim(claim) => format!("no {claim}"),
            ErrorKind::Json(_) => "json".to_owned(),
            kind => format!("{kind:?}"),
        },
        other => format!("not an error of a JWT: {other}"),
    }
}

fn refused(verifier: &Verifier, token: &str) -> String {
    verifier
        .verify(token)
        .map_or_else(|refused| refusal(&refused), |_| "accepted".to_owned())
}

fn shop() -> (JwtIssuer, Verifier) {
    let shop = JwtIssuer::eddsa("ed", 7);
    let verifier = verifier(&[shop.jwk()]);
    (shop, verifier)
}

fn verified(changed: &Value) -> Verified {
    let (shop, verifier) = shop();
    verifier.verify(&shop.token(changed)).expect("good")
}

#[test]
fn a_good_token_has_a_caller_and_times() {
    let token = verified(&json!({"role": "admin", "iat": 1_000, "exp": 4_000_000_000_u64}));
    let caller = Caller {
        user: 7,
        role: Role::Admin,
        issuer: None,
    };
    assert_eq!(*token.caller(), caller);
    assert_eq!(token.claims.issued_at, 1_000);
    assert_eq!(token.expires_at(), 4_000_000_000);
}

#[test]
fn each_algorithm_verifies_with_its_own_key() {
    let issuers = JwtIssuer::all();
    let verifier = verifier(&issuers.each_ref().map(JwtIssuer::jwk));
    for issuer in &issuers {
        let token = issuer.token(&json!({}));
        let verified = verifier.verify(&token).expect("good");
        assert_eq!(verified.kid(), issuer.kid);
        // Bits of the last digit may be padding, so the first digit is changed.
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        let first = if signature.starts_with('A') { "B" } else { "A" };
        let forged = format!("{signed}.{first}{}", &signature[1..]);
        assert_eq!(
            refused(&verifier, &forged),
            "InvalidSignature",
            "{}",
            issuer.kid
        );
    }
}

/// The header may name neither the algorithm of another key, nor another algorithm that fits the key.
#[test]
fn a_key_verifies_with_no_other_algorithm() {
    let issuers = JwtIssuer::all();
    let verifier = verifier(&issuers.each_ref().map(JwtIssuer::jwk));
    for issuer in &issuers {
        for key in issuers.iter().filter(|key| key.kid != issuer.kid) {
            let mut header = issuer.header();
            header.kid = Some(key.kid.clone());
            let token = issuer.sign(&header, &json!({}));
            let shown = format!("{} under {}", issuer.kid, key.kid);
            assert_eq!(refused(&verifier, &token), "InvalidAlgorithm", "{shown}");
        }
    }
    for (issuer, algorithms) in [
        (&issuers[2], [Algorithm::RS384, Algorithm::PS256]),
        (&issuers[3], [Algorithm::HS384, Algorithm::HS512]),
    ] {
        for algorithm in algorithms {
            let mut header = issuer.header();
            header.alg = algorithm;
            let token = issuer.sign(&header, &json!({}));
            assert_eq!(
                refused(&verifier, &token),
                "InvalidAlgorithm",
                "{algorithm:?}"
            );
        }
    }
}

#[test]
fn an_unsigned_token_is_refused() {
    let (shop, verifier) = shop();
    let good = shop.token(&json!({}));
    let claims = good.split('.').nth(1).expect("three parts");
    for alg in ["none", "None", ""] {
        let header = BASE64_URL_SAFE_NO_PAD
            .encode(json!({"alg": alg, "typ": "JWT", "kid": "ed"}).to_string());
        for signature in ["", "AAAA"] {
            let token = format!("{header}.{claims}.{signature}");
            assert_eq!(
                refused(&verifier, &token),
                "json",
                "there is no such algorithm"
            );
        }
    }
}

/// Everybody knows the public key. If it were accepted as a secret, everybody could sign with it.
#[test]
fn a_public_key_is_not_accepted_as_a_secret() {
    let issuers = JwtIssuer::all();
    let verifier = verifier(&issuers.each_ref().map(JwtIssuer::jwk));
    for issuer in &issuers[..3] {
        let jwk = issuer.jwk();
        let parts = ["x", "y", "n"].map(|part| jwk[part].as_str().unwrap_or_default());
        let secrets = parts
            .iter()
            .filter(|part| !part.is_empty())
            .flat_map(|part| {
                let raw = BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64url");
                [raw, part.as_bytes().to_vec()]
            });
        for secret in secrets {
            let mut header = issuer.header();
            header.alg = Algorithm::HS256;
            let token = encode(
                &header,
                &claims(&json!({})),
                &EncodingKey::from_secret(&secret),
            );
            let shown = refused(&verifier, &token.expect("signs"));
            assert_eq!(shown, "InvalidAlgorithm", "{}", issuer.kid);
        }
    }
}

#[test]
fn every_claim_is_checked() {
    let (shop, verifier) = shop();
    let past = get_current_timestamp() - LEEWAY - 1;
    let future = get_current_timestamp() + LEEWAY + 60;
    for (why, changed) in [
        ("ExpiredSignature", json!({"exp": past})),
        ("json", json!({"exp": null})),
        ("json", json!({"exp": "tomorrow"})),
        ("no exp", json!({"exp": 1e300})),
        ("ImmatureSignature", json!({"nbf": future})),
        ("InvalidAudience", json!({"aud": "else"})),
        ("no aud", json!({"aud": null})),
        ("InvalidIssuer", json!({"iss": "else"})),
        ("no iss", json!({"iss": null})),
        ("json", json!({"role": "root"})),
        ("json", json!({"role": null})),
        ("json", json!({"role": ["admin"]})),
        ("json", json!({"iat": "now"})),
        ("user", json!({"user_id": null})),
        ("user", json!({"user_id": 0})),
        ("user", json!({"user_id": -7})),
        ("user", json!({"sub": "8"})),
        ("user", json!({"user_id": null, "sub": "auth0|7"})),
        ("user", json!({"user_id": "auth0|7", "sub": "7"})),
        ("json", json!({"user_id": 7.5})),
        ("length", json!({"x": "x".repeat(TOKEN_MAX)})),
    ] {
        assert_eq!(
            refused(&verifier, &shop.token(&changed)),
            why,
            "{changed:.80}"
        );
    }
    let forged = JwtIssuer::eddsa("ed", 8).token(&json!({}));
    assert_eq!(refused(&verifier, &forged), "InvalidSignature");
}

#[test]
fn a_repeated_claim_is_refused_and_one_audience_of_several_is_enough() {
    let (shop, verifier) = shop();
    let among = shop.token(&json!({"aud": ["else", "returns"]}));
    assert_eq!(refused(&verifier, &among), "accepted");
    // A `Value` holds each name once, so the second is added to the text.
    for twice in [r#""role":"admin""#, r#""user_id":8"#, r#""exp":4000000000"#] {
        let claims = claims(&json!({})).to_string();
        let claims = claims.replacen('{', &format!("{{{twice},"), 1);
        let header = json!({"alg": "EdDSA", "kid": "ed"}).to_string();
        let signed = [header, claims]
            .map(|part| BASE64_URL_SAFE_NO_PAD.encode(part))
            .join(".");
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &shop.key, shop.algorithm);
        let token = format!("{signed}.{}", signature.expect("signs"));
        assert_eq!(refused(&verifier, &token), "json", "{twice}");
    }
}

/// Clocks may differ by the leeway; the policy checks the times again for each request.
#[test]
fn a_token_within_the_leeway_is_accepted() {
    let (shop, verifier) = shop();
    let now = get_current_timestamp();
    for changed in [
        json!({"exp": now - LEEWAY / 2}),
        json!({"nbf": now + LEEWAY / 2}),
    ] {
        assert_eq!(
            refused(&verifier, &shop.token(&changed)),
            "accepted",
            "{changed}"
        );
    }
}

#[test]
fn the_time_of_issue_is_iat_or_now() {
    let now = get_current_timestamp();
    for (iat, issued_at) in [
        (json!(1_000), Some(1_000)),
        (json!(1_000.9), Some(1_000)),
        (json!(-1), Some(0)),
        // Not 1970, which would be in the past.
        (json!(1e300), Some(u64::MAX)),
        (json!(null), None),
    ] {
        let read = verified(&json!({ "iat": iat })).claims.issued_at;
        match issued_at {
            Some(issued_at) => assert_eq!(read, issued_at, "{iat}"),
            None => assert!((now..=get_current_timestamp()).contains(&read), "{iat}"),
        }
    }
}

/// The token cannot choose its key or its algorithm.
#[test]
fn every_header_is_checked() {
    let (shop, verifier) = shop();
    let own_key = json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"});
    for (why, name, value) in [
        ("accepted", "typ", json!("JWT")),
        ("accepted", "typ", json!("at+jwt")),
        // A media type (RFC 7515, 4.1.9; RFC 9068, 2.1).
        ("accepted", "typ", json!("jwt")),
        ("accepted", "typ", json!("at+JWT")),
        ("accepted", "typ", json!("application/at+jwt")),
        ("accepted", "typ", json!("Application/JWT")),
        ("type", "typ", json!("application/application/jwt")),
        ("type", "typ", json!("text/jwt")),
        ("type", "typ", json!("jwt ")),
        ("type", "typ", json!("secevent+jwt")),
        ("type", "typ", json!("")),
        ("header", "crit", json!(["b64"])),
        ("header", "jku", json!("https://evil.example/keys")),
        ("header", "jwk", own_key),
        ("header", "x5u", json!("https://evil.example/chain")),
        ("header", "x5c", json!(["AAAA"])),
    ] {
        let mut header = json!({"alg": "EdDSA", "typ": "JWT", "kid": "ed"});
        header[name] = value;
        let header: Header = serde_json::from_value(header).expect("a header");
        let token = shop.sign(&header, &json!({}));
        assert_eq!(refused(&verifier, &token), why, "{name}");
    }
    let mut header = shop.header();
    header.typ = None;
    assert_eq!(
        refused(&verifier, &shop.sign(&header, &json!({}))),
        "accepted"
    );
}

#[test]
fn a_key_is_found_by_its_kid_and_without_a_kid_if_it_is_the_only_one() {
    let (old, new) = (JwtIssuer::eddsa("old", 1), JwtIssuer::eddsa("new", 2));
    let (root, secret) = (Root::new(1, 3), JwtIssuer::hs256("hs", 4));
    let mut header = old.header();
    header.kid = None;
    let unnamed = old.sign(&header, &json!({}));
    for (keys, expected) in [
        (vec![old.jwk()], "accepted"),
        (vec![old.jwk(), root.jwk()], "accepted"),
        (vec![old.jwk(), new.jwk()], "key"),
        (vec![old.jwk(), secret.jwk()], "key"),
        (vec![new.jwk()], "InvalidSignature"),
        (vec![root.jwk()], "key"),
    ] {
        assert_eq!(refused(&verifier(&keys), &unnamed), expected, "{keys:?}");
    }
    for kid in ["New", "new ", "../keys/new", "", "1"] {
        header.kid = Some(kid.to_owned());
        let token = new.sign(&header, &json!({}));
        assert_eq!(
            refused(&verifier(&[new.jwk(), root.jwk()]), &token),
            "key",
            "{kid:?}"
        );
    }
}

/// The shop's `user_id` has priority over an opaque `sub`; a number alone may stand in either claim.
#[test]
fn the_user_is_the_number_in_either_claim() {
    for changed in [
        json!({"user_id": 7}),
        json!({"user_id": "7"}),
        json!({"user_id": null, "sub": "7"}),
        json!({"user_id": null, "sub": 7}),
        json!({"user_id": 7, "sub": "7"}),
        json!({"user_id": 7, "sub": "auth0|x"}),
    ] {
        assert_eq!(verified(&changed).caller().user, 7, "{changed}");
    }
}

/// Other ids do not fit the table of revoked tokens; such a token has its revocation id only.
#[test]
fn a_token_id_is_short_visible_ascii() {
    let longest = "x".repeat(TOKEN_ID_MAX);
    for (jti, shown) in [
        (json!("t-1"), Some("t-1")),
        (json!(longest), Some(longest.as_str())),
        (json!(format!("{longest}x")), None),
        (json!(""), None),
        (json!("t 1"), None),
        (json!("t-\u{e9}"), None),
        (json!(5), None),
        (json!(null), None),
    ] {
        assert_eq!(verified(&json!({ "jti": jti })).token_id(), shown, "{jti}");
    }
}

/// Two encodings of one signature give the same id, so that revoking one revokes the other.
#[test]
fn a_revocation_id_does_not_depend_on_the_signature() {
    let (shop, verifier) = shop();
    let (one, other) = (shop.token(&json!({})), shop.token(&json!({"jti": "t-2"})));
    let id = |token: &str| verifier.verify(token).expect("good").claims.revocation_ids;
    assert_eq!(id(&one), id(&one));
    assert_ne!(id(&one), id(&other));
    assert_eq!(id(&one), [jwt_revocation_id(&one)]);
    let (signed, _) = one.rsplit_once('.').expect("three parts");
    assert_eq!(
        jwt_revocation_id(&format!("{signed}.AAAA")),
        jwt_revocation_id(&one)
    );
    assert_eq!(
        jwt_revocation_id("a.b.c"),
        // printf a.b | sha256sum
        "2e7336dc8eba87ef472df568c35482abf2575dc3e5eac0c5c62b8ffaeac2c934"
    );
}

/// This holds for refusals before and after the check of the signature.
#[test]
fn p13_a_refusal_does_not_repeat_the_token() {
    let (shop, verifier) = shop();
    let claims = BASE64_URL_SAFE_NO_PAD.encode(claims(&json!({})).to_string());
    let header = |header: Value| BASE64_URL_SAFE_NO_PAD.encode(header.to_string());
    let foreign = header(json!({"alg": "EdDSA", "typ": "s3cret", "kid": "ed"}));
    let unknown = header(json!({"alg": "EdDSA", "kid": "s3cret"}));
    let no_algorithm = header(json!({"alg": "s3cret"}));
    for token in [
        "s3cret.s3cret.s3cret".to_owned(),
        format!("{foreign}.{claims}.s3cret"),
        format!("{unknown}.{claims}.s3cret"),
        format!("{no_algorithm}.{claims}.s3cret"),
        shop.token(&json!({"role": "s3cret"})),
        shop.token(&json!({"exp": "s3cret"})),
        shop.token(&json!({"user_id": "s3cret"})),
        shop.token(&json!({"iss": "s3cret", "aud": "s3cret"})),
    ] {
        let refused = verifier.verify(&token).expect_err("bad");
        let shown = format!("{refused} {refused:?}");
        assert!(!shown.contains("s3cret") && shown.len() < 300, "{shown}");
        assert!(
            std::error::Error::source(&refused).is_none(),
            "nor as its source: {token}"
        );
    }
}
