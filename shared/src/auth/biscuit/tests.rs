use biscuit_auth::BiscuitBuilder;
use biscuit_auth::format::schema;
use prost::Message;

use super::super::test_tokens::{LEEWAY, Root, append, date, issuer_facts, text, verifier};
use super::super::{TOKEN_MAX, Verifier};
use super::*;

/// The check that refused the token, if one did.
fn outcome(verifier: &Verifier, token: &str) -> String {
    match verifier.verify(token) {
        Ok(_) => "accepted".to_owned(),
        Err(TokenError::UnknownKey) => "key".to_owned(),
        Err(TokenError::NotCanonical) => "not canonical".to_owned(),
        Err(TokenError::User) => "user".to_owned(),
        Err(TokenError::Time) => "time".to_owned(),
        Err(TokenError::UnexpectedFact) => "unexpected fact".to_owned(),
        Err(TokenError::Repeated(name)) => format!("two of {name}"),
        Err(TokenError::Structure(why)) => format!("{why:?}"),
        Err(refused) => refused.code().to_owned(),
    }
}

fn root() -> (Root, Verifier) {
    let root = Root::new(1, 1);
    let verifier = verifier(&[root.jwk(), Root::new(2, 2).jwk()]);
    (root, verifier)
}

/// The token, changed by a person without a key.
fn edited(token: &Biscuit, edit: impl FnOnce(&mut schema::Biscuit)) -> String {
    let raw = token.to_vec().expect("encodes");
    let mut token = schema::Biscuit::decode(&raw[..]).expect("ours");
    edit(&mut token);
    BASE64.encode(token.encode_to_vec())
}

#[test]
fn a_good_token_has_a_caller_and_times() {
    let (root, verifier) = root();
    let (begin, end) = (date(1_000), date(4_000_000_000));
    let changed = [
        ("role", r#""admin""#),
        ("issued_at", &begin),
        ("expires_at", &end),
    ];
    let token = root.biscuit(&issuer_facts(&changed));
    let verified = verifier.verify(&text(&token)).expect("good");
    let caller = Caller {
        user: 7,
        role: Role::Admin,
        issuer: None,
    };
    assert_eq!(*verified.caller(), caller);
    assert_eq!(
        (verified.claims.issued_at, verified.expires_at()),
        (1_000, 4_000_000_000)
    );
    assert_eq!((verified.token_id(), verified.kid()), (Some("t-1"), "1"));
    let unnamed = root.biscuit(&issuer_facts(&[("token_id", "")]));
    assert_eq!(
        verifier.verify(&text(&unnamed)).expect("good").token_id(),
        None
    );
}

#[test]
fn a_revocation_id_names_each_block() {
    let (root, verifier) = root();
    let parent = root.biscuit(&issuer_facts(&[]));
    let child = append(&parent, r#"check if access("read");"#);
    let ids = |token: &Biscuit| {
        verifier
            .verify(&text(token))
            .expect("good")
            .claims
            .revocation_ids
    };
    let raw = child.to_vec().expect("encodes");
    let blocks = schema::Biscuit::decode(&raw[..]).expect("ours");
    let signatures = [&blocks.authority.signature, &blocks.blocks[0].signature];
    assert_eq!(ids(&child), signatures.map(hex::encode));
    assert_eq!(ids(&parent), ids(&child)[..1]);
    assert_eq!(ids(&child.seal().expect("seals")), ids(&child));
    assert_ne!(
        ids(&root.biscuit(&issuer_facts(&[]))),
        ids(&parent),
        "each issued token has its own"
    );
}

/// The padding may be left out; it changes no signed byte.
#[test]
fn the_text_is_base64url_with_padding_or_without() {
    let (root, verifier) = root();
    // Until the text contains padding and the characters that differ between the two alphabets.
    let padded = (0..)
        .map(|id| {
            text(&root.biscuit(&issuer_facts(&[(
                "token_id",
                &format!(r#""{}""#, "x".repeat(id % 3)),
            )])))
        })
        .find(|text| text.contains('-') && text.contains('_') && text.ends_with('='))
        .expect("soon");
    let unpadded = padded.trim_end_matches('=');
    assert_eq!(outcome(&verifier, &padded), "accepted");
    assert_eq!(outcome(&verifier, unpadded), "accepted");
    let standard = padded.replace('-', "+").replace('_', "/");
    for other in [
        standard.trim_end_matches('=').to_owned(),
        standard,
        format!("{padded}="),
        format!(" {padded}"),
        format!("{padded}\n"),
        format!("{}\n{}", &padded[..9], &padded[9..]),
        format!("biscuit:{padded}"),
        hex::encode(root.biscuit(&issuer_facts(&[])).to_vec().expect("encodes")),
    ] {
        assert_eq!(outcome(&verifier, &other), "Malformed", "{other}");
    }
    assert_eq!(outcome(&verifier, ""), "malformed");
}

#[test]
fn a_text_is_decoded_up_to_the_longest_length() {
    assert_eq!(
        decode(&"A".repeat(TOKEN_MAX)),
        Err(StructureError::Malformed)
    );
    assert_eq!(
        decode(&"A".repeat(TOKEN_MAX + 1)),
        Err(StructureError::TooLong)
    );
}

/// A second encoding of a revoked token would look like another token.
#[test]
fn a_token_has_one_encoding() {
    let (root, verifier) = root();
    let raw = root.biscuit(&issuer_facts(&[])).to_vec().expect("encodes");
    for (why, tail) in [
        ("an unknown field 15", &[0x78, 1][..]),
        ("the root key id twice", &[0x08, 1]),
    ] {
        let encoded = BASE64.encode([&raw[..], tail].concat());
        assert_eq!(outcome(&verifier, &encoded), "not canonical", "{why}");
    }
    assert_eq!(outcome(&verifier, &BASE64.encode(raw)), "accepted");
}

#[test]
fn a_root_key_is_found_by_its_number_alone() {
    let (root, verifier) = root();
    let token = root.biscuit(&issuer_facts(&[]));
    let named = |number| edited(&token, |token| token.root_key_id = number);
    assert_eq!(outcome(&verifier, &named(Some(1))), "accepted");
    assert_eq!(
        outcome(&verifier, &named(Some(2))),
        "signature",
        "the number of another key"
    );
    assert_eq!(outcome(&verifier, &named(Some(3))), "key");
    assert_eq!(outcome(&verifier, &named(None)), "key");
    let lone = super::super::test_tokens::verifier(&[root.jwk()]);
    assert_eq!(
        outcome(&lone, &named(None)),
        "key",
        "even if there is only one"
    );
    let unnamed = root.build(BiscuitBuilder::new(), &issuer_facts(&[]));
    assert_eq!(outcome(&lone, &text(&unnamed)), "key");
    let forged = Root::new(1, 9).biscuit(&issuer_facts(&[]));
    assert_eq!(outcome(&verifier, &text(&forged)), "signature");
}

/// The holder of a narrowed token must not be able to make the wider one from it.
#[test]
fn a_holder_cannot_remove_move_or_change_blocks() {
    let (root, verifier) = root();
    let once = append(
        &root.biscuit(&issuer_facts(&[])),
        r#"check if access("read");"#,
    );
    let twice = append(&once, r#"check if resource("return", 5);"#);
    let other = append(&root.biscuit(&issuer_facts(&[])), "check if user($u);");
    assert_eq!(outcome(&verifier, &text(&twice)), "accepted");
    for (why, token) in [
        (
            "the last stripped",
            edited(&twice, |token| drop(token.blocks.pop())),
        ),
        (
            "the first stripped",
            edited(&twice, |token| drop(token.blocks.remove(0))),
        ),
        ("all stripped", edited(&twice, |token| token.blocks.clear())),
        ("swapped", edited(&twice, |token| token.blocks.swap(0, 1))),
        (
            "one of two",
            edited(&twice, |token| token.blocks[1] = token.blocks[0].clone()),
        ),
        (
            "changed",
            edited(&twice, |token| {
                *token.blocks[1].block.last_mut().expect("bytes") ^= 1
            }),
        ),
        (
            "a block of another token",
            edited(&once, |token| {
                let raw = other.to_vec().expect("encodes");
                let other = schema::Biscuit::decode(&raw[..]).expect("ours");
                token.blocks = other.blocks;
                token.proof = other.proof;
            }),
        ),
    ] {
        let outcome = outcome(&verifier, &token);
        assert!(
            ["signature", "malformed"].contains(&outcome.as_str()),
            "{why}: {outcome}"
        );
    }
}

#[test]
fn a_sealed_token_is_accepted_and_nobody_can_append_to_it() {
    let (root, verifier) = root();
    let whole = root.biscuit(&issuer_facts(&[]));
    let narrowed = append(&whole, r#"check if access("read");"#);
    let sealed = whole.seal().expect("seals");
    assert_eq!(outcome(&verifier, &text(&sealed)), "accepted");
    let block = biscuit_auth::builder::BlockBuilder::new();
    assert!(matches!(
        sealed.append(block),
        Err(BiscuitError::AlreadySealed)
    ));
    let raw = narrowed.to_vec().expect("encodes");
    let narrowed = schema::Biscuit::decode(&raw[..]).expect("ours");
    let blocks = narrowed.blocks.clone();
    let kept_seal = edited(&sealed, |token| token.blocks = blocks);
    assert_eq!(outcome(&verifier, &kept_seal), "signature");
    let broken_seal = edited(&sealed, |token| {
        // An invented key for appending.
        let secret = vec![9; 32];
        token.proof.content = Some(schema::proof::Content::NextSecret(secret));
    });
    assert_ne!(outcome(&verifier, &broken_seal), "accepted");
}

#[test]
fn the_issuer_states_each_fact_once_and_with_the_right_type() {
    let (root, verifier) = root();
    for (why, changed) in [
        ("user", [("user", "")]),
        ("user", [("user", "0")]),
        ("user", [("user", "-7")]),
        ("user", [("user", r#""7""#)]),
        ("user", [("role", "")]),
        ("user", [("role", r#""root""#)]),
        ("user", [("role", r#""Admin""#)]),
        ("user", [("role", "1")]),
        ("time", [("issued_at", "")]),
        ("time", [("issued_at", "5")]),
        ("time", [("expires_at", "")]),
        ("time", [("expires_at", r#""2099-01-01T00:00:00Z""#)]),
        ("accepted", [("token_id", "")]),
        ("accepted", [("token_id", "5")]),
        // The policy checks these for each request.
        ("accepted", [("audience", r#""else""#)]),
        ("accepted", [("issuer", r#""else""#)]),
        ("accepted", [("expires_at", "1970-01-01T00:00:00Z")]),
        ("accepted", [("issued_at", "2999-01-01T00:00:00Z")]),
    ] {
        let token = text(&root.biscuit(&issuer_facts(&changed)));
        assert_eq!(outcome(&verifier, &token), why, "{changed:?}");
    }
    let end = date(4_000_000_000 + LEEWAY);
    for (name, term) in [
        ("user", "8"),
        ("role", r#""admin""#),
        ("issued_at", &end),
        ("expires_at", &end),
        ("token_id", r#""t-2""#),
    ] {
        let token = root.biscuit(&format!("{}{name}({term});", issuer_facts(&[])));
        assert_eq!(outcome(&verifier, &text(&token)), format!("two of {name}"));
    }
}

/// Otherwise a root key for customers only could create admins, and give away returns of other customers.
#[test]
fn an_issuer_may_state_only_the_facts_of_an_issuer() {
    let (root, verifier) = root();
    for more in [
        r#"key_roles({"customer", "admin"})"#,
        r#"owner(5, 7)"#,
        r#"resource("return", 5)"#,
        r#"operation("returns.list")"#,
        "time(2020-01-01T00:00:00Z)",
        r#"our_audience("else")"#,
        "tenant(1)",
        "user(7, 8)",
    ] {
        let token = root.biscuit(&format!("{} {more};", issuer_facts(&[])));
        assert_eq!(
            outcome(&verifier, &text(&token)),
            "unexpected fact",
            "{more}"
        );
    }
    let rule = format!(r#"{} role("admin") <- user($u);"#, issuer_facts(&[]));
    assert_eq!(outcome(&verifier, &text(&root.biscuit(&rule))), "Rule");
}

/// `check_structure` refuses all of these; without it they would be refused here.
#[test]
fn facts_of_a_holder_are_not_read() {
    let (root, verifier) = root();
    let whole = root.biscuit(&issuer_facts(&[]));
    for stated in [
        r#"user(8); role("admin"); token_id("t-2");"#,
        r#"role("admin") <- user($u); user(8) <- role($r);"#,
    ] {
        let token = append(&whole, stated);
        assert_eq!(
            outcome(&verifier, &text(&token)),
            "NotChecksOnly",
            "{stated}"
        );
        // They count as unexpected facts, and not as facts of the issuer.
        let read = IssuerFacts::read(&token).map(|facts| facts.0);
        assert!(
            matches!(read, Err(TokenError::UnexpectedFact)),
            "{stated}: {read:?}"
        );
    }
}

#[test]
fn p13_a_refusal_does_not_repeat_the_token() {
    let (root, verifier) = root();
    let canary = "s3cret".repeat(20);
    let quoted = format!("{canary:?}");
    let whole = root.biscuit(&issuer_facts(&[]));
    let encoded = [whole.to_vec().expect("encodes"), vec![0x78, 1]].concat();
    let narrowed = append(&whole, &format!("check if resource({quoted}, 5);"));
    for token in [
        canary.clone(),
        text(&root.biscuit(&issuer_facts(&[("role", &quoted)]))),
        text(&root.biscuit(&issuer_facts(&[("user", &quoted)]))),
        text(&root.biscuit(&issuer_facts(&[("expires_at", &quoted)]))),
        text(&root.biscuit(&format!("{}user({quoted});", issuer_facts(&[])))),
        text(&append(&whole, &format!("role({quoted});"))),
        edited(&narrowed, |token| token.root_key_id = Some(2)),
        edited(&narrowed, |token| token.blocks[0].signature.reverse()),
        BASE64.encode(encoded),
    ] {
        let refused = verifier.verify(&token).expect_err("bad");
        let shown = format!("{refused} {refused:?}");
        assert!(
            !shown.contains("s3cret") && !shown.contains(&token),
            "{shown}"
        );
        assert!(shown.len() < 300, "{shown}");
    }
    // A verified token holds the key to append to it.
    let verified = verifier.verify(&text(&narrowed)).expect("good");
    let shown = format!("{verified:?}");
    assert!(!shown.contains("s3cret") && shown.len() < 200, "{shown}");
}
