//! Which tokens are accepted, and which resources their callers see.

use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, Header};
use serde_json::json;

use crate::harness::Api;
use crate::tokens::{Format, Issuer, Keys, edited};

#[tokio::test]
async fn a_jwt_must_be_complete_issued_for_us_and_valid_now() {
    let api = Api::start().await;
    let good = json!({"user_id": 42, "role": "customer"});
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = good.clone();
        claims[name] = value;
        api.keys.mint(claims)
    };
    let headed = |edit: &dyn Fn(&mut Header)| {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some("jwt-1".to_owned());
        edit(&mut header);
        api.keys.mint_with_header(&header, good.clone())
    };
    let refused = [
        ("foreign key", Keys::generate().mint(good.clone())),
        ("expired", with("exp", json!(1))),
        ("no exp", with("exp", json!(null))),
        ("not yet valid", with("nbf", json!(4_000_000_000_u64))),
        ("wrong audience", with("aud", json!("else"))),
        ("no audience", with("aud", json!(null))),
        ("wrong issuer", with("iss", json!("else"))),
        ("no issuer", with("iss", json!(null))),
        ("unknown role", with("role", json!("root"))),
        ("no role", with("role", json!(null))),
        ("no user", with("user_id", json!(null))),
        ("user zero", with("user_id", json!(0))),
        ("two users", with("sub", json!("43"))),
        ("number as role", with("role", json!(1))),
        ("user below zero", with("user_id", json!(-42))),
        ("user with a fraction", with("user_id", json!(42.5))),
        (
            "issued in the future",
            with("iat", json!(4_000_000_000_u64)),
        ),
        (
            "strange type",
            headed(&|header| header.typ = Some("secevent+jwt".to_owned())),
        ),
        (
            "critical header",
            headed(&|header| header.crit = Some(vec!["b64".to_owned()])),
        ),
        (
            "keys elsewhere",
            headed(&|header| header.jku = Some("https://evil.example/keys".to_owned())),
        ),
        (
            "certificates elsewhere",
            headed(&|header| header.x5u = Some("https://evil.example/x5u".to_owned())),
        ),
        (
            "certificates inside",
            headed(&|header| header.x5c = Some(vec!["MIIB".to_owned()])),
        ),
        (
            "unknown kid",
            headed(&|header| header.kid = Some("else".to_owned())),
        ),
        (
            "a Biscuit's kid",
            headed(&|header| header.kid = Some("1".to_owned())),
        ),
        ("malformed", "a.b.c".to_owned()),
        ("not a token", "hello".to_owned()),
    ];
    for (what, token) in refused {
        let answer = api.get("/returns/1", &token).await;
        assert_eq!(answer.status, 401, "{what}");
        answer.problem(401, "unauthenticated");
        assert_eq!(
            answer.header("www-authenticate"),
            Some(r#"Bearer realm="returns", error="invalid_token""#),
            "{what}"
        );
    }
    let none = api
        .http
        .get(api.url("/returns/1"))
        .send()
        .await
        .expect("a response");
    assert_eq!(none.status(), 401);
    for accepted in [
        good.clone(),
        json!({"sub": "42", "role": "customer"}),
        json!({"sub": "auth0|x", "user_id": 42, "role": "customer"}),
        json!({"sub": "42", "user_id": 42, "role": "customer"}),
    ] {
        let token = api.keys.mint(accepted);
        api.get("/returns/1", &token)
            .await
            .problem(404, "not-found");
    }
    for accepted in [
        headed(&|header| header.typ = None),
        headed(&|header| header.typ = Some("at+jwt".to_owned())),
        headed(&|header| header.typ = Some("application/at+JWT".to_owned())),
        // The file has only one key.
        headed(&|header| header.kid = None),
    ] {
        api.get("/returns/1", &accepted)
            .await
            .problem(404, "not-found");
    }
    api.stop().await;
}

#[tokio::test]
async fn a_biscuit_must_be_complete_issued_for_us_and_valid_now() {
    let api = Api::start().await;
    let issuer = api.keys.issuer();
    let good = json!({"user_id": 42, "role": "customer"});
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = good.clone();
        claims[name] = value;
        api.keys.mint_as(Format::Biscuit, claims)
    };
    let saying = |more: &str| {
        let token = issuer.biscuit_saying(good.clone(), more);
        token.to_base64().expect("encode")
    };
    let token = with("jti", json!(null));
    let numbered = |id: Option<u32>| edited(&token, |parts| parts.root_key_id = id);
    let refused = [
        (
            "foreign key",
            Keys::generate().mint_as(Format::Biscuit, good.clone()),
        ),
        (
            "unknown key",
            Issuer::new(9).mint_as(Format::Biscuit, good.clone()),
        ),
        ("no number of a key", numbered(None)),
        ("another number", numbered(Some(2))),
        ("expired", with("exp", json!(1))),
        ("no end", with("exp", json!(null))),
        (
            "issued in the future",
            with("iat", json!(4_000_000_000_u64)),
        ),
        ("never issued", with("iat", json!(null))),
        ("wrong audience", with("aud", json!("else"))),
        ("no audience", with("aud", json!(null))),
        ("wrong issuer", with("iss", json!("else"))),
        ("unknown role", with("role", json!("root"))),
        ("no role", with("role", json!(null))),
        ("two roles", saying(r#"role("admin")"#)),
        ("no user", with("user_id", json!(null))),
        ("user zero", with("user_id", json!(0))),
        ("user below zero", with("user_id", json!(-42))),
        ("two users", saying("user(43)")),
        ("text as user", saying(r#"user("43")"#)),
        ("two ends", saying("expires_at(2099-01-01T00:00:00Z)")),
        ("two token ids", saying(r#"token_id("a"); token_id("b")"#)),
        ("cut short", token[..token.len() - 4].to_owned()),
        (
            "standard base64",
            token.replace('-', "+").replace('_', "/") + "+",
        ),
    ];
    for (what, token) in refused {
        let answer = api.get("/returns/1", &token).await;
        assert_eq!(answer.status, 401, "{what}");
        answer.problem(401, "unauthenticated");
    }
    for (what, accepted) in [
        ("as minted", token.clone()),
        ("without padding", token.trim_end_matches('=').to_owned()),
        ("no issuer", with("iss", json!(null))),
    ] {
        let answer = api.get("/returns/1", &accepted).await;
        assert_eq!(answer.status, 404, "{what}");
    }
    api.stop().await;
}

#[tokio::test]
async fn p13_someone_elses_order_and_an_unknown_one_look_alike() {
    let api = Api::start().await;
    api.db
        .seed_orders(1, 1, shared::domain::ids::CustomerId(43))
        .await;
    let strip = |answer: crate::harness::Answer| {
        let mut problem = answer.problem(400, "unknown-order");
        for id in ["request_id", "trace_id", "span_id"] {
            problem[id] = json!(null);
        }
        problem
    };
    let foreign = strip(api.file(1).await);
    let unknown = strip(api.file(999).await);
    assert_eq!(foreign, unknown);
    api.stop().await;
}

/// Identity providers that list groups issue longer tokens than 4 KiB.
#[tokio::test]
async fn a_token_of_8_kib_is_accepted_if_the_setting_says_so() {
    for (flags, status) in [(&["--auth-token-max-bytes", "8192"][..], 404), (&[], 401)] {
        let api = Api::start_with(flags).await;
        let groups = "x".repeat(5_750);
        let jwt = json!({"user_id": 42, "role": "customer", "groups": groups});
        let biscuit = json!({"user_id": 42, "role": "customer", "jti": groups});
        for token in [
            api.keys.mint(jwt),
            api.keys.mint_as(Format::Biscuit, biscuit),
        ] {
            assert!((7_800..=8_192).contains(&token.len()), "{}", token.len());
            assert_eq!(api.get("/returns/1", &token).await.status, status);
        }
        api.stop().await;
    }
}

#[tokio::test]
async fn a_cached_token_is_refused_once_it_has_expired() {
    let api = Api::start().await;
    let now = jsonwebtoken::get_current_timestamp();
    // With the leeway of 30 s they are valid for some five seconds more.
    let claims = json!({"user_id": 42, "role": "customer", "exp": now - 25});
    let tokens = Format::ALL.map(|format| api.keys.mint_as(format, claims.clone()));
    for token in &tokens {
        api.get("/returns/1", token).await.problem(404, "not-found");
    }
    let deadline = Instant::now() + Duration::from_secs(15);
    for token in &tokens {
        while api.get("/returns/1", token).await.status != 401 {
            assert!(Instant::now() < deadline, "it is still good");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert!(jsonwebtoken::get_current_timestamp() > now + 4, "too early");
    api.stop().await;
}
