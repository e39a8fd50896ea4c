use biscuit_auth::BiscuitBuilder;
use biscuit_auth::format::schema;
use prost::Message;

use super::super::test_tokens::{LEEWAY, Root, append, date, said, text, verifier};
use super::super::{TOKEN_MAX, Verifier};
use super::*;

/// Which of our checks refused it, if any did.
fn outcome(verifier: &Verifier, token: &str) -> String {
    match verifier.verify(token) {
        Ok(_) => "accepted".to_owned(),
        Err(Refused::UnknownKey) => "key".to_owned(),
        Err(Refused::SecondSpelling) => "spelling".to_owned(),
        Err(Refused::User) => "user".to_owned(),
        Err(Refused::Time) => "time".to_owned(),
        Err(Refused::Saying) => "saying".to_owned(),
        Err(Refused::Twice(name)) => format!("two of {name}"),
        Err(Refused::Unvetted(why)) => format!("{why:?}"),
        Err(refused) => refused.code().to_owned(),
    }
}

fn root() -> (Root, Verifier) {
    let root = Root::new(1, 1);
    let verifier = verifier(&[root.jwk(), Root::new(2, 2).jwk()]);
    (root, verifier)
}

/// As bytes, changed by someone who has no key.
fn edited(token: &Biscuit, edit: impl FnOnce(&mut schema::Biscuit)) -> String {
    let raw = token.to_vec().expect("encodes");
    let mut token = schema::Biscuit::decode(&raw[..]).expect("ours");
    edit(&mut token);
    BASE64.encode(token.encode_to_vec())
}

#[test]
fn a_good_token_tells_who_and_from_when_until_when() {
    let (root, verifier) = root();
    let (begin, end) = (date(1_000), date(4_000_000_000));
    let changed = [
        ("role", r#""admin""#),
        ("issued_at", &begin),
        ("expires_at", &end),
    ];
    let token = root.biscuit(&said(&changed));
    let verified = verifier.verify(&text(&token)).expect("good");
    let caller = Caller {
        user: 7,
        role: Role::Admin,
    };
    assert_eq!(*verified.caller(), caller);
    assert_eq!(
        (verified.claims.issued_at, verified.expires_at()),
        (1_000, 4_000_000_000)
    );
    assert_eq!((verified.token_id(), verified.kid()), (Some("t-1"), "1"));
    let unnamed = root.biscuit(&said(&[("token_id", "")]));
    assert_eq!(
        verifier.verify(&text(&unnamed)).expect("good").token_id(),
        None
    );
}

#[test]
fn a_revocation_id_names_each_block() {
    let (root, verifier) = root();
    let parent = root.biscuit(&said(&[]));
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
        ids(&root.biscuit(&said(&[]))),
        ids(&parent),
        "each issued token has its own"
    );
}

/// Padding is the one freedom; it changes no byte of what is signed.
#[test]
fn the_text_is_base64url_with_padding_or_without() {
    let (root, verifier) = root();
    // Until the letters that the alphabets do not share and padding are among them.
    let padded = (0..)
        .map(|id| {
            text(&root.biscuit(&said(&[(
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
        hex::encode(root.biscuit(&said(&[])).to_vec().expect("encodes")),
    ] {
        assert_eq!(outcome(&verifier, &other), "Malformed", "{other}");
    }
    assert_eq!(outcome(&verifier, ""), "malformed");
}

#[test]
fn a_text_is_decoded_up_to_its_longest_and_not_beyond() {
    assert_eq!(decode(&"A".repeat(TOKEN_MAX)), Err(Unvetted::Malformed));
    assert_eq!(decode(&"A".repeat(TOKEN_MAX + 1)), Err(Unvetted::TooLong));
}

/// A second spelling of a token that is taken back would be a second token to whoever compares bytes.
#[test]
fn a_token_has_one_spelling_in_bytes() {
    let (root, verifier) = root();
    let raw = root.biscuit(&said(&[])).to_vec().expect("encodes");
    for (why, tail) in [
        ("a field 15 that nobody knows", &[0x78, 1][..]),
        ("the root key id once more", &[0x08, 1]),
    ] {
        let spelt = BASE64.encode([&raw[..], tail].concat());
        assert_eq!(outcome(&verifier, &spelt), "spelling", "{why}");
    }
    assert_eq!(outcome(&verifier, &BASE64.encode(raw)), "accepted");
}

#[test]
fn a_root_key_is_found_by_its_number_alone() {
    let (root, verifier) = root();
    let token = root.biscuit(&said(&[]));
    let named = |number| edited(&token, |token| token.root_key_id = number);
    assert_eq!(outcome(&verifier, &named(Some(1))), "accepted");
    assert_eq!(
        outcome(&verifier, &named(Some(2))),
        "signature",
        "another's name"
    );
    assert_eq!(outcome(&verifier, &named(Some(3))), "key");
    assert_eq!(outcome(&verifier, &named(None)), "key");
    let lone = super::super::test_tokens::verifier(&[root.jwk()]);
    assert_eq!(
        outcome(&lone, &named(None)),
        "key",
        "even if there is but one"
    );
    let unnamed = root.build(BiscuitBuilder::new(), &said(&[]));
    assert_eq!(outcome(&lone, &text(&unnamed)), "key");
    let forged = Root::new(1, 9).biscuit(&said(&[]));
    assert_eq!(outcome(&verifier, &text(&forged)), "signature");
}

/// Whoever was given a narrowed token must not get at the wider one.
#[test]
fn a_holder_cannot_take_blocks_away_or_move_or_change_them() {
    let (root, verifier) = root();
    let once = append(&root.biscuit(&said(&[])), r#"check if access("read");"#);
    let twice = append(&once, r#"check if resource("return", 5);"#);
    let other = append(&root.biscuit(&said(&[])), "check if user($u);");
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
            "another's block",
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
fn a_sealed_token_is_read_and_nobody_appends_to_it() {
    let (root, verifier) = root();
    let whole = root.biscuit(&said(&[]));
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
        // The key to append with, made up.
        let secret = vec![9; 32];
        token.proof.content = Some(schema::proof::Content::NextSecret(secret));
    });
    assert_ne!(outcome(&verifier, &broken_seal), "accepted");
}

#[test]
fn what_the_issuer_says_is_said_once_and_in_its_form() {
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
        // The policy's to judge, at each request.
        ("accepted", [("audience", r#""else""#)]),
        ("accepted", [("issuer", r#""else""#)]),
        ("accepted", [("expires_at", "1970-01-01T00:00:00Z")]),
        ("accepted", [("issued_at", "2999-01-01T00:00:00Z")]),
    ] {
        let token = text(&root.biscuit(&said(&changed)));
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
        let token = root.biscuit(&format!("{}{name}({term});", said(&[])));
        assert_eq!(outcome(&verifier, &text(&token)), format!("two of {name}"));
    }
}

/// Or a root key that vouches for customers only would make admins, and give away strangers' returns.
#[test]
fn an_issuer_says_what_is_its_own_to_say() {
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
        let token = root.biscuit(&format!("{} {more};", said(&[])));
        assert_eq!(outcome(&verifier, &text(&token)), "saying", "{more}");
    }
    let rule = format!(r#"{} role("admin") <- user($u);"#, said(&[]));
    assert_eq!(outcome(&verifier, &text(&root.biscuit(&rule))), "Rule");
}

/// `vet` lets none of these in; were it gone, they would be refused all the same.
#[test]
fn what_a_holder_states_is_not_read() {
    let (root, verifier) = root();
    let whole = root.biscuit(&said(&[]));
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
        // Seen as more than the issuer says, and not as the issuer's.
        let read = Said::read(&token).map(|said| said.0);
        assert!(matches!(read, Err(Refused::Saying)), "{stated}: {read:?}");
    }
}

#[test]
fn p13_a_refusal_does_not_repeat_the_token() {
    let (root, verifier) = root();
    let canary = "s3cret".repeat(20);
    let quoted = format!("{canary:?}");
    let whole = root.biscuit(&said(&[]));
    let spelt = [whole.to_vec().expect("encodes"), vec![0x78, 1]].concat();
    let narrowed = append(&whole, &format!("check if resource({quoted}, 5);"));
    for token in [
        canary.clone(),
        text(&root.biscuit(&said(&[("role", &quoted)]))),
        text(&root.biscuit(&said(&[("user", &quoted)]))),
        text(&root.biscuit(&said(&[("expires_at", &quoted)]))),
        text(&root.biscuit(&format!("{}user({quoted});", said(&[])))),
        text(&append(&whole, &format!("role({quoted});"))),
        edited(&narrowed, |token| token.root_key_id = Some(2)),
        edited(&narrowed, |token| token.blocks[0].signature.reverse()),
        BASE64.encode(spelt),
    ] {
        let refused = verifier.verify(&token).expect_err("bad");
        let told = format!("{refused} {refused:?}");
        assert!(!told.contains("s3cret") && !told.contains(&token), "{told}");
        assert!(told.len() < 300, "{told}");
    }
    // What is verified holds the key to append to it.
    let verified = verifier.verify(&text(&narrowed)).expect("good");
    let told = format!("{verified:?}");
    assert!(!told.contains("s3cret") && told.len() < 200, "{told}");
}
