use serde_json::json;

use super::super::test_tokens::{self, JwtIssuer, Root, append, issuer_facts, text, verifier};
use super::super::{Caller, Role, TOKEN_MAX};
use super::*;

#[test]
fn a_dot_distinguishes_the_formats() {
    let (shop, root) = (JwtIssuer::eddsa("ed", 7), Root::new(1, 1));
    let jwt = shop.token(&json!({}));
    let biscuit = text(&root.biscuit(&issuer_facts(&[])));
    assert_eq!(TokenFormat::of(&jwt), TokenFormat::Jwt);
    assert_eq!(TokenFormat::of(&biscuit), TokenFormat::Biscuit);
    let verifier = verifier(&[shop.jwk(), root.jwk()]);
    assert!(verifier.verify(&jwt).expect("good").biscuit.is_none());
    assert!(verifier.verify(&biscuit).expect("good").biscuit.is_some());
}

#[test]
fn text_that_is_neither_a_jwt_nor_a_biscuit_is_refused() {
    let (shop, root) = (JwtIssuer::eddsa("ed", 7), Root::new(1, 1));
    let verifier = verifier(&[shop.jwk(), root.jwk()]);
    let jwt = shop.token(&json!({}));
    let biscuit = text(&root.biscuit(&issuer_facts(&[])));
    let (signed, signature) = jwt.rsplit_once('.').expect("three parts");
    for token in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "a.b".to_owned(),
        "a.b.c".to_owned(),
        "a.b.c.d".to_owned(),
        signed.to_owned(),
        jwt.replace('.', ""),
        format!("{jwt}.{signature}"),
        format!("{jwt}."),
        format!("{jwt}="),
        format!(".{biscuit}"),
        format!("{biscuit}."),
        format!("{biscuit}.{jwt}"),
        format!("{signed}.{biscuit}"),
        format!("{biscuit}{biscuit}"),
        "\u{e9}".repeat(20),
        "\0".to_owned(),
    ] {
        let refused = verifier.verify(&token).expect_err("neither");
        let code = refused.code();
        let broken = ["malformed", "signature"].contains(&code);
        assert!(broken, "{token:.40}: {code}");
    }
}

#[test]
fn a_token_is_read_up_to_the_longest_length() {
    let shop = JwtIssuer::eddsa("ed", 7);
    let verifier = verifier(&[shop.jwk()]);
    for letter in ["A", "."] {
        let at = |length| {
            verifier
                .verify(&letter.repeat(length))
                .expect_err("no token")
        };
        assert!(!matches!(at(TOKEN_MAX), TokenError::Length), "{letter}");
        assert!(matches!(at(TOKEN_MAX + 1), TokenError::Length), "{letter}");
    }
    let longest = (11_000..13_000)
        .map(|padding| shop.token(&json!({"x": "x".repeat(padding)})))
        .take_while(|token| token.len() <= TOKEN_MAX)
        .last()
        .expect("some");
    assert!(longest.len() > TOKEN_MAX - 4);
    assert!(verifier.verify(&longest).is_ok());
}

/// Old and new keys together, then the new ones alone: no caller is locked out, and the old keys stop working.
#[test]
fn keys_are_replaced_without_locking_callers_out() {
    let (old, new) = (JwtIssuer::eddsa("2026", 1), JwtIssuer::es256("2027", 2));
    let (old_root, new_root) = (Root::new(1, 3), Root::new(2, 4));
    let tokens = [
        old.token(&json!({})),
        new.token(&json!({})),
        text(&old_root.biscuit(&issuer_facts(&[]))),
        text(&new_root.biscuit(&issuer_facts(&[]))),
    ];
    for (keys, expected) in [
        (vec![old.jwk(), old_root.jwk()], [true, false, true, false]),
        (
            vec![old.jwk(), new.jwk(), old_root.jwk(), new_root.jwk()],
            [true; 4],
        ),
        (vec![new.jwk(), new_root.jwk()], [false, true, false, true]),
    ] {
        let verifier = verifier(&keys);
        let found = tokens.each_ref().map(|token| match verifier.verify(token) {
            Ok(_) => true,
            Err(refused) => {
                assert_eq!(refused.code(), "unknown_key");
                false
            }
        });
        assert_eq!(found, expected);
    }
}

/// Metrics count refused tokens by code.
#[test]
fn every_refused_token_has_a_code() {
    let (shop, root) = (JwtIssuer::eddsa("ed", 7), Root::new(1, 1));
    let verifier = verifier(&[shop.jwk(), root.jwk()]);
    let whole = root.biscuit(&issuer_facts(&[]));
    let jwt = |changed| shop.token(&changed);
    let biscuit = |changed: (&str, &str)| text(&root.biscuit(&issuer_facts(&[changed])));
    let mut header = shop.header();
    header.typ = Some("secevent+jwt".to_owned());
    let mut critical = shop.header();
    critical.crit = Some(vec!["b64".to_owned()]);
    let mut confused = shop.header();
    confused.alg = jsonwebtoken::Algorithm::HS256;
    let secret = JwtIssuer::hs256("ed", 1);
    for (code, token) in [
        ("malformed", "x".repeat(TOKEN_MAX + 1)),
        ("malformed", "a.b.c".to_owned()),
        ("malformed", "x".to_owned()),
        ("malformed", jwt(json!({"role": "root"}))),
        ("signature", JwtIssuer::eddsa("ed", 8).token(&json!({}))),
        (
            "signature",
            text(&Root::new(1, 9).biscuit(&issuer_facts(&[]))),
        ),
        ("algorithm", secret.sign(&confused, &json!({}))),
        ("time", jwt(json!({"exp": 1_000}))),
        ("time", jwt(json!({"nbf": 4_000_000_000_u64}))),
        ("not_for_us", jwt(json!({"aud": "else"}))),
        ("not_for_us", jwt(json!({"iss": "else"}))),
        ("claims", jwt(json!({"aud": null}))),
        ("claims", jwt(json!({"user_id": 0}))),
        ("claims", biscuit(("user", "0"))),
        ("claims", biscuit(("expires_at", ""))),
        (
            "claims",
            text(&root.biscuit(&format!("{}user(8);", issuer_facts(&[])))),
        ),
        ("header", shop.sign(&header, &json!({}))),
        ("header", shop.sign(&critical, &json!({}))),
        ("unknown_key", JwtIssuer::eddsa("no", 7).token(&json!({}))),
        (
            "unknown_key",
            text(&Root::new(3, 1).biscuit(&issuer_facts(&[]))),
        ),
        ("unvetted", text(&append(&whole, r#"role("admin");"#))),
    ] {
        let refused = verifier.verify(&token).expect_err(code);
        assert_eq!(refused.code(), code, "{refused}");
    }
    assert_eq!(TokenError::Undecided.code(), "undecided");
}

#[test]
fn debug_shows_the_caller_and_the_key_and_no_more() {
    let secret = JwtIssuer::hs256("hs", b's');
    let token = secret.token(&json!({"role": "admin", "jti": "canary"}));
    let verified = verifier(&[secret.jwk()]).verify(&token).expect("good");
    let caller = Caller {
        user: 7,
        role: Role::Admin,
        issuer: None,
    };
    assert_eq!(
        format!("{verified:?}"),
        format!("Verified {{ caller: {caller:?}, kid: \"hs\", .. }}")
    );
}

#[test]
fn the_error_of_a_key_file_that_cannot_be_read_names_its_path() {
    let error = Verifier::load(&test_tokens::args("/no/such/keys".into())).expect_err("absent");
    assert!(error.to_string().contains("/no/such/keys"), "{error}");
}

/// Identity providers that list groups issue longer tokens than 4 KiB.
#[test]
fn a_token_is_as_long_as_the_setting_allows() {
    let (shop, root) = (JwtIssuer::eddsa("ed", 7), Root::new(1, 1));
    let file = tempfile::NamedTempFile::new().expect("a file");
    let keys = json!({"keys": [shop.jwk(), root.jwk()]});
    std::fs::write(file.path(), keys.to_string()).expect("written");
    let jwt = shop.token(&json!({"groups": "x".repeat(5_800)}));
    let id = format!("{:?}", "x".repeat(5_600));
    let biscuit = text(&root.biscuit(&issuer_facts(&[("token_id", &id)])));
    for token in [jwt, biscuit] {
        assert!((7_600..8_192).contains(&token.len()), "{}", token.len());
        for (max, accepted) in [(8_192, true), (4_096, false)] {
            let args = AuthArgs {
                auth_token_max_bytes: max,
                ..test_tokens::args(file.path().to_owned())
            };
            let verified = Verifier::load(&args).expect("keys").verify(&token);
            let refused = verified.err();
            assert_eq!(refused.is_none(), accepted, "{max}: {refused:?}");
            assert!(refused.is_none_or(|refused| matches!(refused, TokenError::Length)));
        }
    }
}
