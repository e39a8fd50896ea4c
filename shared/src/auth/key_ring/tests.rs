use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::json;

use super::super::test_tokens::{JwtIssuer, Root, issuer_facts, load, text, verifier};
use super::super::{Denied, Operation, Policy, Request, test_tokens};
use super::*;

mod file;
mod issuer;

/// The problem of a bad set.
fn problem(keys: &[Value]) -> String {
    load(keys).expect_err("a bad set").problem.to_string()
}

/// `jwk` with members changed; null removes one.
fn with(mut jwk: Value, changed: &Value) -> Value {
    for (name, value) in changed.as_object().expect("an object") {
        jwk[name] = value.clone();
        if value.is_null() {
            jwk.as_object_mut().expect("an object").remove(name);
        }
    }
    jwk
}

#[test]
fn a_set_may_hold_keys_of_every_kind() {
    let jwt = JwtIssuer::all().map(|issuer| issuer.jwk());
    let roots = [Root::new(0, 1).jwk(), Root::new(u32::MAX, 2).jwk()];
    let verifier = verifier(&[&jwt[..], &roots].concat());
    let ring = verifier.keys();
    assert_eq!(
        (ring.count(KeyUse::Jwt), ring.count(KeyUse::Biscuit)),
        (4, 2)
    );
    for kid in ["ed", "es", "rs", "hs"] {
        assert!(
            ring.has(KeyUse::Jwt, kid) && !ring.has(KeyUse::Biscuit, kid),
            "{kid}"
        );
    }
    for kid in ["0", "4294967295"] {
        assert!(
            ring.has(KeyUse::Biscuit, kid) && !ring.has(KeyUse::Jwt, kid),
            "{kid}"
        );
    }
    assert!(!ring.has(KeyUse::Biscuit, "1"));
}

/// The use separates keys of JWTs from those of Biscuits, not the name.
#[test]
fn a_name_is_unique_among_the_keys_of_one_format() {
    let (shop, root) = (JwtIssuer::eddsa("1", 1), Root::new(1, 1));
    let both = verifier(&[shop.jwk(), root.jwk()]);
    assert!(both.keys().has(KeyUse::Jwt, "1") && both.keys().has(KeyUse::Biscuit, "1"));
    let twice = "key 2: another key has the same kid";
    assert_eq!(
        problem(&[shop.jwk(), JwtIssuer::hs256("1", 2).jwk()]),
        twice
    );
    assert_eq!(problem(&[root.jwk(), Root::new(1, 2).jwk()]), twice);
}

#[test]
fn a_jwt_key_has_the_use_sig_or_none_and_other_uses_are_skipped() {
    let (shop, rsa) = (
        JwtIssuer::eddsa("ed", 1).jwk(),
        JwtIssuer::rs256("rs").jwk(),
    );
    let counts = |keys: &[Value]| {
        let verifier = verifier(keys);
        [KeyUse::Jwt, KeyUse::Biscuit].map(|key_use| verifier.keys().count(key_use))
    };
    assert_eq!(
        counts(&[with(shop.clone(), &json!({"use": "sig"}))]),
        [1, 0]
    );
    assert_eq!(counts(&[with(shop.clone(), &json!({"use": null}))]), [1, 0]);
    for skipped in [
        json!({"use": "enc", "alg": "RSA-OAEP"}),
        json!({"use": "enc", "alg": "no algorithm of ours"}),
        json!({"use": "enc", "kid": "ed"}),
        json!({"use": "enc", "kid": null}),
        json!({"use": "tls"}),
    ] {
        let other = with(rsa.clone(), &skipped);
        assert_eq!(counts(&[other, shop.clone()]), [1, 0], "{skipped}");
    }
    // Kinds of keys that we cannot even parse.
    let x25519 = json!({"kty": "OKP", "crv": "X25519", "use": "enc", "kid": "x", "x": "AAAA"});
    let lattice =
        json!({"kty": "AKP", "alg": "ML-KEM-768", "use": "enc", "kid": "y", "pub": "AAAA"});
    for unknown in [x25519, lattice] {
        assert_eq!(
            counts(&[unknown.clone(), shop.clone()]),
            [1, 0],
            "{unknown}"
        );
    }
}

#[test]
fn an_algorithm_may_be_named_if_it_is_the_keys_own() {
    for issuer in JwtIssuer::all() {
        let jwk = issuer.jwk();
        assert_eq!(jwk["alg"], json!(issuer.algorithm));
        for good in [jwk.clone(), with(jwk.clone(), &json!({"alg": null}))] {
            assert!(load(&[good]).is_ok(), "{}", issuer.kid);
        }
        for alg in [
            "HS512", "RS384", "PS256", "ES384", "RSA-OAEP", "none", "EdDSA", "HS256",
        ] {
            if jwk["alg"] == alg {
                continue;
            }
            let named = with(jwk.clone(), &json!({ "alg": alg }));
            assert!(
                verifier(&[named]).keys().is_empty(),
                "{} as {alg}",
                issuer.kid
            );
        }
    }
}

/// The problem of a set whose second key is `jwk` with members changed.
fn second_key_problem(jwk: &Value, changed: &Value) -> String {
    problem(&[
        JwtIssuer::eddsa("first", 7).jwk(),
        with(jwk.clone(), changed),
    ])
}

#[test]
fn a_key_that_is_weak_or_private_or_unusable_is_refused() {
    let issuers = JwtIssuer::all().map(|issuer| issuer.jwk());
    let [ed, es, rs, hs] = &issuers;
    let private = "it holds the private half; only public keys may be in this file";
    let unusable = "the key is not usable";
    let secret = |bytes| json!({"k": BASE64_URL_SAFE_NO_PAD.encode(vec![7; bytes])});
    let bad_secret = json!({"k": "not base64url, though it is long enough"});
    let bad_size = "the RSA key has less than 2048 or more than 4096 bits";
    for (why, key, changed) in [
        (private, ed, json!({"d": "AAAA"})),
        (private, rs, json!({"d": "AAAA"})),
        (private, rs, json!({"d": "AAAA", "use": "enc"})),
        ("it has no kid", ed, json!({"kid": null})),
        ("it has no kid", ed, json!({"kid": ""})),
        ("it is not a JWK", ed, json!({"kid": 5})),
        (unusable, ed, json!({"x": "AAAA"})),
        (unusable, ed, json!({"x": "+/+/"})),
        (unusable, es, json!({"x": "AAAA"})),
        (unusable, es, json!({"x": es["y"]})),
        ("the secret has less than 32 bytes", hs, secret(31)),
        ("k is not base64url", hs, bad_secret),
        ("n is not base64url", rs, json!({"n": "+/+/"})),
        (bad_size, rs, json!({"n": ""})),
    ] {
        let found = second_key_problem(key, &changed);
        assert_eq!(found, format!("key 2: {why}"), "{changed:.90}");
    }
    let shortest = with(hs.clone(), &secret(32));
    assert!(load(&[shortest]).is_ok(), "as long as the hash");
}

#[test]
fn a_root_key_is_an_ed25519_key_with_a_number() {
    let issuers = JwtIssuer::all().map(|issuer| issuer.jwk());
    let [_, es, rs, hs] = &issuers;
    let root = Root::new(1, 1).jwk();
    let private = "it holds the private half; only public keys may be in this file";
    let not_ed25519 = "a Biscuit's root key must be an Ed25519 key (kty OKP)";
    let number = "the kid of a Biscuit's root key must be a number from 0 to 4294967295";
    let as_root = json!({"use": "biscuit", "kid": "1"});
    let as_root_without_alg = json!({"use": "biscuit", "kid": "1", "alg": null});
    for (why, key, changed) in [
        (private, &root, &json!({"d": "AAAA"})),
        ("it has no kid", &root, &json!({"kid": null})),
        (number, &root, &json!({"kid": "shop"})),
        (number, &root, &json!({"kid": "-1"})),
        (number, &root, &json!({"kid": "+1"})),
        (number, &root, &json!({"kid": "01"})),
        (number, &root, &json!({"kid": "4294967296"})),
        (not_ed25519, &root, &json!({"x": "AAAA"})),
        (not_ed25519, &root, &json!({"x": "+/+/"})),
        (not_ed25519, es, &as_root_without_alg),
        (not_ed25519, es, &as_root),
        (not_ed25519, rs, &as_root),
        (not_ed25519, hs, &as_root),
    ] {
        let found = second_key_problem(key, changed);
        assert_eq!(found, format!("key 2: {why}"), "{changed}");
    }
}

/// Otherwise one new key of an identity provider, of an unknown algorithm, would make all its keys unusable for us.
#[test]
fn keys_of_other_kinds_are_skipped() {
    let issuers = JwtIssuer::all().map(|issuer| issuer.jwk());
    let [ed, es, rs, hs] = &issuers;
    for (key, changed) in [
        (ed, json!({"kty": null})),
        (ed, json!({"crv": "Ed448"})),
        (ed, json!({"crv": "P-256"})),
        (es, json!({"crv": "P-384"})),
        (rs, json!({"n": null})),
        (rs, json!({"alg": "RS512"})),
        (rs, json!({"alg": "PS256"})),
        (hs, json!({"alg": "HS512"})),
        (es, json!({"alg": "RS256"})),
    ] {
        let other = with(key.clone(), &changed);
        let first = with(ed.clone(), &json!({"kid": "first"}));
        let ring = verifier(&[first, other]);
        assert_eq!(ring.keys().count(KeyUse::Jwt), 1, "{changed}");
        assert!(ring.keys().has(KeyUse::Jwt, "first"));
    }
}

#[test]
fn an_rsa_key_has_2048_to_4096_bits_without_leading_zeros() {
    let rsa = JwtIssuer::rs256("rs").jwk();
    let why = "key 1: the RSA key has less than 2048 or more than 4096 bits";
    for (zeros, first, more, good) in [
        (0, 0xff, 127, false),
        (0, 0x7f, 255, false),
        (2, 0x7f, 255, false),
        (0, 0x80, 255, true),
        (1, 0x80, 255, true),
        (0, 0xff, 511, true),
        (1, 0xff, 511, true),
        (0, 0x01, 512, false),
    ] {
        let n = [vec![0; zeros], vec![first], vec![255; more]].concat();
        let key = with(rsa.clone(), &json!({"n": BASE64_URL_SAFE_NO_PAD.encode(n)}));
        let read = load(&[key]).map_err(|error| error.problem.to_string());
        assert_eq!(
            read.err().as_deref(),
            (!good).then_some(why),
            "{zeros} {first} {more}"
        );
    }
}

/// The `roles` of a key in the file take effect in the policy.
#[test]
fn a_key_signs_for_all_roles_or_for_those_it_names() {
    let args = test_tokens::args("unused".into());
    let (shop, root) = (JwtIssuer::eddsa("ed", 1), Root::new(1, 1));
    let all = json!(null);
    for (roles, customer, admin) in [
        (all, true, true),
        (json!(["customer"]), true, false),
        (json!(["customer", "admin", "customer"]), true, true),
        (json!([]), false, false),
    ] {
        let limited = |jwk| with(jwk, &json!({ "roles": roles }));
        let verifier = verifier(&[limited(shop.jwk()), limited(root.jwk())]);
        for (role, operation, accepted) in [
            ("customer", Operation::ReturnsCreate, customer),
            ("admin", Operation::ReturnsList, admin),
        ] {
            let biscuit = root.biscuit(&issuer_facts(&[("role", &format!("{role:?}"))]));
            for token in [shop.token(&json!({ "role": role })), text(&biscuit)] {
                let token = verifier.verify(&token).expect("good");
                let decided = Policy::new(&args).decide(&token, &Request::of(operation));
                let not_accepted = matches!(decided, Err(Denied::Token(_)));
                assert_eq!(
                    (decided.is_ok(), not_accepted),
                    (accepted, !accepted),
                    "{roles} {role}"
                );
            }
        }
    }
}

#[test]
fn unknown_roles_are_refused() {
    let shop = JwtIssuer::eddsa("ed", 1).jwk();
    for roles in [
        json!("admin"),
        json!(["root"]),
        json!([5]),
        json!({"admin": true}),
    ] {
        let why = "key 1: roles is not a list of customer, admin, auditor";
        assert_eq!(
            problem(&[with(shop.clone(), &json!({ "roles": roles }))]),
            why
        );
    }
    let mut null = shop;
    null["roles"] = Value::Null;
    assert!(load(&[null]).is_err(), "null does not mean all roles");
}

#[test]
fn a_key_has_a_thumbprint_and_a_secret_has_none() {
    let (ed, secret) = (JwtIssuer::eddsa("ed", 1), JwtIssuer::hs256("hs", 1));
    let root = Root::new(1, 1);
    let verifier = verifier(&[ed.jwk(), secret.jwk(), root.jwk()]);
    let x = BASE64_URL_SAFE_NO_PAD.encode(root.pair.public().to_bytes());
    // RFC 7638, 3: the required members, in the order of their names.
    let hashed = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    let thumbprint = BASE64_URL_SAFE_NO_PAD.encode(<sha2::Sha256 as sha2::Digest>::digest(hashed));
    let biscuit = text(&root.biscuit(&issuer_facts(&[])));
    for (token, kid, expected) in [
        (ed.token(&json!({})), "ed", Some(thumbprint.as_str())),
        (secret.token(&json!({})), "hs", None),
        (biscuit, "1", Some(thumbprint.as_str())),
    ] {
        let verified = verifier.verify(&token).expect("good");
        assert_eq!((verified.kid(), verified.key_thumbprint()), (kid, expected));
    }
}
