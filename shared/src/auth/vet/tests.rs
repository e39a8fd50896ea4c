use biscuit_auth::Biscuit;
use biscuit_auth::builder::BlockBuilder;

use super::super::test_tokens::{Root, append, said};
use super::*;

fn whole() -> Biscuit {
    Root::new(1, 1).biscuit(&said(&[]))
}

/// Whether a token that its holder has narrowed so may be looked at.
fn appended(datalog: &str) -> Result<(), Unvetted> {
    vet(&append(&whole(), datalog).to_vec().expect("encodes"))
}

/// The same, for what the library would not write.
fn edited(edit: impl FnOnce(&mut schema::Block)) -> Result<(), Unvetted> {
    let token = append(&whole(), "check if user($u) or user($u), 1 === 1;");
    let mut token = schema::Biscuit::decode(&token.to_vec().expect("encodes")[..]).expect("ours");
    let mut block = schema::Block::decode(&token.blocks[0].block[..]).expect("ours");
    edit(&mut block);
    token.blocks[0].block = block.encode_to_vec();
    vet(&token.encode_to_vec())
}

fn repeated(item: &str, times: usize, between: &str) -> String {
    vec![item; times].join(between)
}

#[test]
fn a_token_as_issued_and_what_holders_need_is_looked_at() {
    for narrowed in [
        r#"check if access("read");"#,
        r#"check if resource("return", 5);"#,
        "check if time($t), $t < 2099-01-01T00:00:00Z;",
        r#"check if operation($o), ["returns.read", "returns.list"].contains($o);"#,
        r#"reject if access("write");"#,
        "check all time($t), $t < 2099-01-01T00:00:00Z;",
    ] {
        assert_eq!(appended(narrowed), Ok(()), "{narrowed}");
    }
    let sealed = whole().seal().expect("seals");
    assert_eq!(vet(&sealed.to_vec().expect("encodes")), Ok(()));
}

#[test]
fn a_token_is_looked_at_up_to_its_longest_and_not_beyond() {
    let length = |padding: usize| {
        let padding = format!("{}pad({:?});", said(&[]), "x".repeat(padding));
        Root::new(1, 1).biscuit(&padding).to_vec().expect("encodes")
    };
    let padding = 2000 + BISCUIT_MAX - length(2000).len();
    let (longest, longer) = (length(padding), length(padding + 1));
    assert_eq!((longest.len(), vet(&longest)), (BISCUIT_MAX, Ok(())));
    assert_eq!(
        (longer.len(), vet(&longer)),
        (BISCUIT_MAX + 1, Err(Unvetted::TooLong))
    );
}

#[test]
fn a_token_has_four_blocks_at_most() {
    let mut token = whole();
    for blocks in 1..=6 {
        assert_eq!(token.block_count(), blocks);
        let expected = if blocks <= 4 {
            Ok(())
        } else {
            Err(Unvetted::TooManyBlocks)
        };
        assert_eq!(vet(&token.to_vec().expect("encodes")), expected, "{blocks}");
        token = append(&token, r#"check if access("read");"#);
    }
}

#[test]
fn a_check_is_looked_at_up_to_its_largest_and_not_beyond() {
    let checks = |count| repeated("check if user($u);", count, " ");
    let queries = |count| format!("check if {};", repeated("user($u)", count, " or "));
    let body = |count| format!("check if {};", repeated("user($u)", count, ", "));
    let expressions = |count| format!("check if {};", repeated("1 === 1", count, ", "));
    // Numbers, one operation less between them, and the comparison: 2 * n + 1.
    let odd = |numbers| format!("check if {} === 16;", repeated("1", numbers, " + "));
    // And the parentheses.
    let even = |numbers| format!("check if ({}) === 16;", repeated("1", numbers, " + "));
    // And the one that is looked for, and the set itself.
    let members = |count| {
        let numbers: Vec<String> = (0..count - 2).map(|number| number.to_string()).collect();
        let (set, list) = (numbers.join(", "), numbers.join(", "));
        [
            format!("check if {{{set}}}.contains(1);"),
            format!("check if [{list}].contains(1);"),
        ]
    };
    for (largest, too_large) in members(MAX_TERMS).iter().zip(&members(MAX_TERMS + 1)) {
        assert_eq!(appended(largest), Ok(()), "{largest}");
        assert_eq!(appended(too_large), Err(Unvetted::TooLarge), "{too_large}");
    }
    for (largest, too_large) in [
        (checks(MAX_CHECKS), checks(MAX_CHECKS + 1)),
        (queries(MAX_QUERIES), queries(MAX_QUERIES + 1)),
        (body(MAX_BODY), body(MAX_BODY + 1)),
        (expressions(MAX_BODY), expressions(MAX_BODY + 1)),
        (even(MAX_OPS / 2 - 1), odd(MAX_OPS / 2)),
    ] {
        assert_eq!(appended(&largest), Ok(()), "{largest}");
        assert_eq!(appended(&too_large), Err(Unvetted::TooLarge), "{too_large}");
    }
}

/// Else the limits could be met in parts: the second check, the second query, a later block.
#[test]
fn every_part_of_every_appended_block_is_looked_at() {
    let regex = r#"user($u), "a".matches("a")"#;
    for hidden in [
        format!("check if {regex};"),
        format!("check if user($u); check if {regex};"),
        format!("check if user($u) or {regex};"),
        format!("check if 1 === 1, {regex};"),
        format!("reject if {regex};"),
        format!("check all {regex};"),
    ] {
        assert_eq!(appended(&hidden), Err(Unvetted::Regex), "{hidden}");
    }
    let mut token = whole();
    for datalog in [
        "check if user($u);",
        "check if user($u);",
        &format!("check if {regex};"),
    ] {
        token = append(&token, datalog);
    }
    assert_eq!(vet(&token.to_vec().expect("encodes")), Err(Unvetted::Regex));
}

/// A join of facts that a holder has brought along costs more than any limit of the engine's lets on.
#[test]
fn an_appended_block_holds_checks_and_nothing_else() {
    let key = "ed25519/acdd6d5b53bfee478bf689f8e012fe7988bf755e3d7c5152947abc149bc20189";
    for more in [
        r#"role("admin");"#,
        "check if user($u); user(8);",
        r#"role("admin") <- user($u);"#,
        "check if user($u) trusting previous;",
        &format!("check if user($u) trusting {key};"),
        &format!("check if user($u) or user($u) trusting {key};"),
    ] {
        assert_eq!(appended(more), Err(Unvetted::NotChecksOnly), "{more}");
    }
    let key = schema::PublicKey {
        algorithm: 0,
        key: vec![7; 32],
    };
    let key_alone = edited(|block| block.public_keys.push(key));
    assert_eq!(key_alone, Err(Unvetted::NotChecksOnly));
    let previous = schema::scope::Content::ScopeType(schema::scope::ScopeType::Previous as i32);
    let scope = schema::Scope {
        content: Some(previous),
    };
    assert_eq!(
        edited(|block| block.scope.push(scope)),
        Err(Unvetted::NotChecksOnly)
    );
    assert_eq!(edited(|_| ()), Ok(()));
}

#[test]
fn a_closure_a_regular_expression_and_a_foreign_function_are_refused() {
    for (refused, check) in [
        (Unvetted::Closure, "check if [1, 2].any($x -> $x === 1);"),
        (
            Unvetted::Closure,
            "check if [1, 2].all($x -> [3].any($y -> $x === $y));",
        ),
        // Written with closures; a comma says the same without.
        (Unvetted::Closure, "check if user($u), $u > 0 && $u < 9;"),
        (Unvetted::Closure, "check if user($u), $u > 0 || $u < 9;"),
        (Unvetted::Closure, "check if (1 / 0 === 1).try_or(true);"),
        (
            Unvetted::Regex,
            r#"check if "aaaa".matches("(\\w{40}){10}");"#,
        ),
        (Unvetted::Foreign, r#"check if "a".extern::f();"#),
        (Unvetted::Foreign, r#"check if "a".extern::f("b");"#),
    ] {
        assert_eq!(appended(check), Err(refused), "{check}");
    }
}

#[test]
fn a_third_partys_block_is_refused() {
    let (whole, third) = (whole(), Root::new(2, 2).pair);
    let request = whole.third_party_request().expect("not sealed");
    let block = BlockBuilder::new()
        .code("check if user($u);")
        .expect("good Datalog");
    let block = request
        .create_block(&third.private(), block)
        .expect("signs");
    let token = whole
        .append_third_party(third.public(), block)
        .expect("appends");
    let raw = token.to_vec().expect("encodes");
    assert_eq!(vet(&raw), Err(Unvetted::ThirdParty));
    // The issuer's block could claim to be one as well.
    let mut token = schema::Biscuit::decode(&raw[..]).expect("ours");
    token.authority.external_signature = token.blocks.remove(0).external_signature;
    assert_eq!(vet(&token.encode_to_vec()), Err(Unvetted::ThirdParty));
}

#[test]
fn what_is_no_biscuit_is_refused() {
    let raw = whole().to_vec().expect("encodes");
    for bytes in [&[0; 40][..], &[0xff; 40], &raw[1..], &raw[..raw.len() - 1]] {
        assert_eq!(vet(bytes), Err(Unvetted::Malformed), "{bytes:?}");
    }
    let raw = append(&whole(), "check if user($u);")
        .to_vec()
        .expect("encodes");
    let mut token = schema::Biscuit::decode(&raw[..]).expect("ours");
    token.blocks[0].block = vec![0xff; 8];
    assert_eq!(vet(&token.encode_to_vec()), Err(Unvetted::Malformed));
    let nothing = edited(|block| {
        let ops = &mut block.checks[0].queries[1].expressions[0].ops;
        ops[0].content = None;
    });
    assert_eq!(nothing, Err(Unvetted::Malformed));
}

/// No text says this; the engine would print a line for each match.
#[test]
fn a_querys_head_says_nothing() {
    let headed = edited(|block| {
        let query = &mut block.checks[0].queries[0];
        query.head.terms.push(schema::Term {
            content: Some(schema::term::Content::Variable(1)),
        });
    });
    assert_eq!(headed, Err(Unvetted::TooLarge));
}

/// Reading what is nested deep takes stack; the decoder stops before it is used up.
#[test]
fn what_is_nested_too_deep_is_refused() {
    let nested = |depth| {
        edited(|block| {
            let mut term = schema::Term {
                content: Some(schema::term::Content::Integer(1)),
            };
            for _ in 0..depth {
                let array = schema::Array { array: vec![term] };
                term = schema::Term {
                    content: Some(schema::term::Content::Array(array)),
                };
            }
            block.checks[0].queries[0].body[0].terms = vec![term];
        })
    };
    assert_eq!(nested(1), Ok(()));
    for depth in [2, 10] {
        assert_eq!(nested(depth), Err(Unvetted::TooLarge), "{depth}");
    }
    assert_eq!(nested(200), Err(Unvetted::Malformed));
}
