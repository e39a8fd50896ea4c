use biscuit_auth::Biscuit;
use biscuit_auth::builder::BlockBuilder;

use super::super::test_tokens::{Root, append, issuer_facts};
use super::*;

fn whole() -> Biscuit {
    Root::new(1, 1).biscuit(&issuer_facts(&[]))
}

/// Checks a token with this block appended.
fn appended(datalog: &str) -> Result<(), StructureError> {
    check_structure(&append(&whole(), datalog).to_vec().expect("encodes"))
}

/// Checks a token with a block that the library would not write.
fn edited(edit: impl FnOnce(&mut schema::Block)) -> Result<(), StructureError> {
    let token = append(&whole(), "check if user($u) or user($u), 1 === 1;");
    let mut token = schema::Biscuit::decode(&token.to_vec().expect("encodes")[..]).expect("ours");
    let mut block = schema::Block::decode(&token.blocks[0].block[..]).expect("ours");
    edit(&mut block);
    token.blocks[0].block = block.encode_to_vec();
    check_structure(&token.encode_to_vec())
}

fn repeated(item: &str, times: usize, between: &str) -> String {
    vec![item; times].join(between)
}

#[test]
fn issued_tokens_and_the_checks_that_holders_need_are_permitted() {
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
    assert_eq!(check_structure(&sealed.to_vec().expect("encodes")), Ok(()));
}

#[test]
fn a_token_is_accepted_up_to_the_longest_length() {
    let length = |padding: usize| {
        let padding = format!("{}pad({:?});", issuer_facts(&[]), "x".repeat(padding));
        Root::new(1, 1).biscuit(&padding).to_vec().expect("encodes")
    };
    let padding = 2000 + BISCUIT_MAX - length(2000).len();
    let (longest, longer) = (length(padding), length(padding + 1));
    assert_eq!(
        (longest.len(), check_structure(&longest)),
        (BISCUIT_MAX, Ok(()))
    );
    assert_eq!(
        (longer.len(), check_structure(&longer)),
        (BISCUIT_MAX + 1, Err(StructureError::TooLong))
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
            Err(StructureError::TooManyBlocks)
        };
        assert_eq!(
            check_structure(&token.to_vec().expect("encodes")),
            expected,
            "{blocks}"
        );
        token = append(&token, r#"check if access("read");"#);
    }
}

#[test]
fn a_check_is_accepted_up_to_the_largest_size() {
    let checks = |count| repeated("check if user($u);", count, " ");
    let queries = |count| format!("check if {};", repeated("user($u)", count, " or "));
    let body = |count| format!("check if {};", repeated("user($u)", count, ", "));
    let expressions = |count| format!("check if {};", repeated("1 === 1", count, ", "));
    // n numbers, n - 1 additions, 16, and the comparison: 2 * n + 1 operations.
    let odd = |numbers| format!("check if {} === 16;", repeated("1", numbers, " + "));
    // One more operation for the parentheses.
    let even = |numbers| format!("check if ({}) === 16;", repeated("1", numbers, " + "));
    // Two more terms: the number that is looked for, and the set itself.
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
        assert_eq!(
            appended(too_large),
            Err(StructureError::TooLarge),
            "{too_large}"
        );
    }
    for (largest, too_large) in [
        (checks(MAX_CHECKS), checks(MAX_CHECKS + 1)),
        (queries(MAX_QUERIES), queries(MAX_QUERIES + 1)),
        (body(MAX_BODY), body(MAX_BODY + 1)),
        (expressions(MAX_BODY), expressions(MAX_BODY + 1)),
        (even(MAX_OPS / 2 - 1), odd(MAX_OPS / 2)),
    ] {
        assert_eq!(appended(&largest), Ok(()), "{largest}");
        assert_eq!(
            appended(&too_large),
            Err(StructureError::TooLarge),
            "{too_large}"
        );
    }
}

/// Otherwise a holder could evade the limits in the second check, the second query or a later block.
#[test]
fn every_part_of_every_appended_block_is_checked() {
    let regex = r#"user($u), "a".matches("a")"#;
    for hidden in [
        format!("check if {regex};"),
        format!("check if user($u); check if {regex};"),
        format!("check if user($u) or {regex};"),
        format!("check if 1 === 1, {regex};"),
        format!("reject if {regex};"),
        format!("check all {regex};"),
    ] {
        assert_eq!(appended(&hidden), Err(StructureError::Regex), "{hidden}");
    }
    let mut token = whole();
    for datalog in [
        "check if user($u);",
        "check if user($u);",
        &format!("check if {regex};"),
    ] {
        token = append(&token, datalog);
    }
    assert_eq!(
        check_structure(&token.to_vec().expect("encodes")),
        Err(StructureError::Regex)
    );
}

/// A join of facts from a holder costs far more than the limits of the engine allow.
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
        assert_eq!(appended(more), Err(StructureError::NotChecksOnly), "{more}");
    }
    let key = schema::PublicKey {
        algorithm: 0,
        key: vec![7; 32],
    };
    let key_alone = edited(|block| block.public_keys.push(key));
    assert_eq!(key_alone, Err(StructureError::NotChecksOnly));
    let previous = schema::scope::Content::ScopeType(schema::scope::ScopeType::Previous as i32);
    let scope = schema::Scope {
        content: Some(previous),
    };
    assert_eq!(
        edited(|block| block.scope.push(scope)),
        Err(StructureError::NotChecksOnly)
    );
    assert_eq!(edited(|_| ()), Ok(()));
}

#[test]
fn a_closure_a_regular_expression_and_a_foreign_function_are_refused() {
    for (refused, check) in [
        (
            StructureError::Closure,
            "check if [1, 2].any($x -> $x === 1);",
        ),
        (
            StructureError::Closure,
            "check if [1, 2].all($x -> [3].any($y -> $x === $y));",
        ),
        // The library writes these with closures; a comma has the same meaning without one.
        (
            StructureError::Closure,
            "check if user($u), $u > 0 && $u < 9;",
        ),
        (
            StructureError::Closure,
            "check if user($u), $u > 0 || $u < 9;",
        ),
        (
            StructureError::Closure,
            "check if (1 / 0 === 1).try_or(true);",
        ),
        (
            StructureError::Regex,
            r#"check if "aaaa".matches("(\\w{40}){10}");"#,
        ),
        (StructureError::Foreign, r#"check if "a".extern::f();"#),
        (StructureError::Foreign, r#"check if "a".extern::f("b");"#),
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
    assert_eq!(check_structure(&raw), Err(StructureError::ThirdParty));
    // The issuer's block could claim to be one of a third party as well.
    let mut token = schema::Biscuit::decode(&raw[..]).expect("ours");
    token.authority.external_signature = token.blocks.remove(0).external_signature;
    assert_eq!(
        check_structure(&token.encode_to_vec()),
        Err(StructureError::ThirdParty)
    );
}

#[test]
fn bytes_that_are_not_a_biscuit_are_refused() {
    let raw = whole().to_vec().expect("encodes");
    for bytes in [&[0; 40][..], &[0xff; 40], &raw[1..], &raw[..raw.len() - 1]] {
        assert_eq!(
            check_structure(bytes),
            Err(StructureError::Malformed),
            "{bytes:?}"
        );
    }
    let raw = append(&whole(), "check if user($u);")
        .to_vec()
        .expect("encodes");
    let mut token = schema::Biscuit::decode(&raw[..]).expect("ours");
    token.blocks[0].block = vec![0xff; 8];
    assert_eq!(
        check_structure(&token.encode_to_vec()),
        Err(StructureError::Malformed)
    );
    let nothing = edited(|block| {
        let ops = &mut block.checks[0].queries[1].expressions[0].ops;
        ops[0].content = None;
    });
    assert_eq!(nothing, Err(StructureError::Malformed));
}

/// Datalog text cannot express this; the engine would print a line for each match.
#[test]
fn a_query_head_with_terms_is_refused() {
    let headed = edited(|block| {
        let query = &mut block.checks[0].queries[0];
        query.head.terms.push(schema::Term {
            content: Some(schema::term::Content::Variable(1)),
        });
    });
    assert_eq!(headed, Err(StructureError::TooLarge));
}

/// Deep nesting uses stack when it is decoded; the decoder stops before the stack ends.
#[test]
fn terms_that_are_nested_too_deep_are_refused() {
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
        assert_eq!(nested(depth), Err(StructureError::TooLarge), "{depth}");
    }
    assert_eq!(nested(200), Err(StructureError::Malformed));
}
