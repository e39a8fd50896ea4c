//! Biscuits with appended blocks that escalate or cost much, and with exchanged parts.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE;
use biscuit_auth::builder::{Algorithm, BlockBuilder, Scope};
use biscuit_auth::format::schema::{self, op, proof, public_key, term};
use biscuit_auth::{Biscuit, KeyPair, UnverifiedBiscuit};
use prost::Message;

use super::{Attack, Attacker, claims, named};
use crate::tokens::{Format, Issuer, READ_ONLY, attenuate, edited};

impl Attacker<'_> {
    pub(super) fn biscuits(&self) -> Vec<Attack> {
        [
            self.escalating_blocks(),
            self.costly_blocks(),
            self.exchanged_parts(),
            self.odd_biscuits(),
        ]
        .concat()
    }

    /// Blocks that try to give the holder more than the issuer granted.
    fn escalating_blocks(&self) -> Vec<Attack> {
        [
            r#"role("admin")"#,
            r#"role("admin") <- user($u)"#,
            r#"role("admin") <- user($u) trusting previous"#,
            "user(7)",
            "owner(1, 42)",
            "time(1970-01-01T00:00:00Z); expires_at(2099-01-01T00:00:00Z)",
            r#"operation("returns.list")"#,
            r#"key_roles({"admin"})"#,
            r#"token_id("other")"#,
            r#"check if role("customer") trusting previous"#,
        ]
        .map(|datalog| named(datalog, attenuate(&self.biscuit, datalog), "unvetted"))
        .into()
    }

    /// Blocks that are small to send and expensive to evaluate.
    fn costly_blocks(&self) -> Vec<Attack> {
        let facts = |count: usize| (0..count).map(|n| format!("f({n}); ")).collect::<String>();
        let join = |ways: usize| {
            let body: Vec<String> = (0..ways).map(|n| format!("f($x{n})")).collect();
            let sum: Vec<String> = (0..ways).map(|n| format!("$x{n}")).collect();
            format!("check if {}, {} == 0 - 1", body.join(", "), sum.join(" + "))
        };
        let list = |count: usize| {
            (0..count)
                .map(|n| n.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let nested = |depth: usize, width: usize| {
            let opening: String = (0..depth)
                .map(|n| format!("{{{}}}.any($x{n} -> ", list(width)))
                .collect();
            format!("check if {opening}$x0 < 0{}", ")".repeat(depth))
        };
        let cross: String = (0..4).map(|n| format!(", f($x{n})")).collect();
        let repeated = |count: usize, check: &str| vec![check; count].join("; ");
        [
            ("60 facts joined four times", facts(60) + &join(4)),
            ("25 facts joined five times", facts(25) + &join(5)),
            ("40 facts joined four times", facts(40) + &join(4)),
            ("20 facts joined four times", facts(20) + &join(4)),
            (
                "a rule's cross product of 25 four times",
                format!("{}g($x0, $x1, $x2, $x3) <- {}", facts(25), &cross[2..]),
            ),
            ("closures three deep over 100", nested(3, 100)),
            ("closures four deep over 30", nested(4, 30)),
            ("one closure", nested(1, 1)),
            (
                "all of a closure",
                "check if {1}.all($x -> $x == 1)".to_owned(),
            ),
            ("a lazy closure", "check if true || false".to_owned()),
            (
                "20 regular expressions",
                repeated(20, r#"check if user($u), "a".matches("(\\w{40}){10}")"#),
            ),
            (
                "one regular expression",
                r#"check if "a".matches("a")"#.to_owned(),
            ),
            ("a foreign function", "check if 1.extern::f()".to_owned()),
            (
                "a foreign function of two",
                "check if 1.extern::f(2)".to_owned(),
            ),
            ("nine checks", repeated(9, "check if true")),
            (
                "five alternatives",
                format!("check if true{}", " or true".repeat(4)),
            ),
            (
                "five predicates",
                format!("check if user($u){}", ", user($u)".repeat(4)),
            ),
            (
                "five expressions",
                format!("check if true{}", ", true".repeat(4)),
            ),
            (
                "33 operations",
                format!("check if 1{} == 0", " + 1".repeat(16)),
            ),
        ]
        .into_iter()
        .map(|(what, datalog)| named(what, attenuate(&self.biscuit, &datalog), "unvetted"))
        .collect()
    }

    /// Parts of good tokens in another order, or of another token.
    fn exchanged_parts(&self) -> Vec<Attack> {
        let token = &self.biscuit;
        let child = attenuate(token, READ_ONLY);
        let grandchild = attenuate(&child, r#"check if operation("returns.read")"#);
        let sealed = self.issuer.biscuit(claims()).seal().expect("seal");
        let sealed = sealed.to_base64().expect("encode");
        let zeros = proof::Content::FinalSignature(vec![0; 64]);
        vec![
            named(
                "no number of a root key",
                edited(token, |parts| parts.root_key_id = None),
                "unknown_key",
            ),
            named(
                "an unknown root key",
                edited(token, |parts| parts.root_key_id = Some(9)),
                "unknown_key",
            ),
            named(
                "another root key of ours",
                edited(token, |parts| parts.root_key_id = Some(2)),
                "signature",
            ),
            named(
                "a stranger's root key",
                Issuer::new(1).mint_as(Format::Biscuit, claims()),
                "signature",
            ),
            named(
                "the last block cut off",
                edited(&grandchild, |parts| drop(parts.blocks.pop())),
                "signature",
            ),
            named(
                "all blocks cut off",
                edited(&grandchild, |parts| parts.blocks.clear()),
                "signature",
            ),
            named(
                "blocks exchanged",
                edited(&grandchild, |parts| parts.blocks.swap(0, 1)),
                "signature",
            ),
            named(
                "a block twice",
                edited(&child, |parts| parts.blocks.push(parts.blocks[0].clone())),
                "malformed",
            ),
            named(
                "a block on a sealed one",
                edited(&sealed, |parts| parts.blocks = parts_of(&child).blocks),
                "signature",
            ),
            named(
                "a seal of zeros",
                edited(&sealed, |parts| parts.proof.content = Some(zeros)),
                "signature",
            ),
            named(
                "no proof",
                edited(token, |parts| parts.proof.content = None),
                "malformed",
            ),
            named(
                "a signature of zeros",
                edited(token, |parts| parts.authority.signature = vec![0; 64]),
                "signature",
            ),
            named(
                "a short signature",
                edited(token, |parts| parts.authority.signature.truncate(63)),
                "malformed",
            ),
            named(
                "no signature",
                edited(token, |parts| parts.authority.signature.clear()),
                "malformed",
            ),
            named(
                "a role written over",
                edited(token, |parts| write_over(parts, b"customer", b"auditors")),
                "signature",
            ),
        ]
    }

    /// Forms that no honest library writes.
    fn odd_biscuits(&self) -> Vec<Attack> {
        let token = &self.biscuit;
        let child = attenuate(token, READ_ONLY);
        let blocks = |count: usize| {
            (1..count).fold(token.clone(), |token, _| attenuate(&token, "check if true"))
        };
        let longer = |length: usize| {
            let block = BlockBuilder::new().context("x".repeat(length));
            let token = self.issuer.biscuit(claims()).append(block).expect("append");
            token.to_base64().expect("encode")
        };
        let unknown_field = [
            &BASE64_URL_SAFE.decode(token).expect("base64")[..],
            &[0x7a, 1, 0],
        ]
        .concat();
        let mut attacks = vec![
            named("five blocks", blocks(5), "unvetted"),
            named("23 blocks", blocks(23), "malformed"),
            named(
                "a block that trusts those before it",
                self.trusting(),
                "unvetted",
            ),
            named("a third party's block", self.third_party(), "unvetted"),
            named("too long", longer(2800), "malformed"),
            named(
                "an unknown field",
                BASE64_URL_SAFE.encode(unknown_field),
                "malformed",
            ),
            named("P-256 keys in the chain", self.chain_of_p256(), "unvetted"),
            named("a root key of P-256", p256_root(), "unvetted"),
            named(
                "65 keys of P-256 in an unsigned block",
                edited(token, |parts| add_keys(parts, 65)),
                "unvetted",
            ),
            named(
                "500 symbols in an unsigned block",
                edited(token, |parts| add_symbols(parts, 500)),
                "signature",
            ),
        ];
        for (depth, check) in [
            (10, "unvetted"),
            (40, "unvetted"),
            (90, "malformed"),
            (300, "malformed"),
        ] {
            let deep = edited(&child, |parts| nest_terms(parts, depth));
            attacks.push(named(format!("terms {depth} deep"), deep, check));
        }
        attacks
    }

    /// Datalog text cannot express this for a whole block.
    fn trusting(&self) -> String {
        let block = BlockBuilder::new().scope(Scope::Previous);
        let token = self.issuer.biscuit(claims());
        let token = token.append(block).expect("append");
        token.to_base64().expect("encode")
    }

    fn third_party(&self) -> String {
        let token = self.issuer.biscuit(claims());
        let request = token.third_party_request().expect("a request");
        let third = KeyPair::new();
        let block = BlockBuilder::new().code(READ_ONLY).expect("Datalog");
        let block = request.create_block(&third.private(), block).expect("sign");
        let token = token
            .append_third_party(third.public(), block)
            .expect("append");
        token.to_base64().expect("encode")
    }

    /// Valid signatures, each five times as expensive to check as ours, and with two spellings.
    fn chain_of_p256(&self) -> String {
        let token = UnverifiedBiscuit::from_base64(&self.biscuit).expect("a Biscuit");
        let token = (0..3).fold(token, |token, _| {
            let key = KeyPair::new_with_algorithm(Algorithm::Secp256r1);
            let block = BlockBuilder::new().code(READ_ONLY).expect("Datalog");
            token.append_with_keypair(&key, block).expect("append")
        });
        token.to_base64().expect("encode")
    }
}

fn p256_root() -> String {
    let key = KeyPair::new_with_algorithm(Algorithm::Secp256r1);
    let builder = Biscuit::builder()
        .code(r#"user(42); role("customer")"#)
        .expect("Datalog");
    let token = builder
        .root_key_id(1)
        .build_with_key_pair(&key, Default::default(), &key);
    token.expect("sign").to_base64().expect("encode")
}

fn parts_of(token: &str) -> schema::Biscuit {
    let raw = BASE64_URL_SAFE.decode(token).expect("base64");
    schema::Biscuit::decode(&raw[..]).expect("a Biscuit")
}

/// Text of the issuer's block, of the same length.
fn write_over(parts: &mut schema::Biscuit, old: &[u8], new: &[u8]) {
    let block = &mut parts.authority.block;
    let at = block
        .windows(old.len())
        .position(|window| window == old)
        .expect("there");
    block[at..at + old.len()].copy_from_slice(new);
}

/// Keys that are parsed, at the cost of a square root each, before the signature is checked.
fn add_keys(parts: &mut schema::Biscuit, count: usize) {
    change_first_block(parts, |block| {
        let keys = (0..count).map(|_| {
            let public = KeyPair::new_with_algorithm(Algorithm::Secp256r1).public();
            schema::PublicKey {
                algorithm: public_key::Algorithm::Secp256r1 as i32,
                key: public.to_bytes(),
            }
        });
        block.public_keys.extend(keys);
    });
}

fn add_symbols(parts: &mut schema::Biscuit, count: usize) {
    change_first_block(parts, |block| {
        block.symbols.extend((0..count).map(|n| format!("{n:x}")))
    });
}

fn change_first_block(parts: &mut schema::Biscuit, change: impl FnOnce(&mut schema::Block)) {
    let mut block = schema::Block::decode(&parts.authority.block[..]).expect("a block");
    change(&mut block);
    parts.authority.block = block.encode_to_vec();
}

/// A list in a list in a list, in the appended block's check.
fn nest_terms(parts: &mut schema::Biscuit, depth: usize) {
    let mut block = schema::Block::decode(&parts.blocks[0].block[..]).expect("a block");
    let innermost = schema::Term {
        content: Some(term::Content::Integer(1)),
    };
    let deep = (0..depth).fold(innermost, |inner, _| schema::Term {
        content: Some(term::Content::Array(schema::Array { array: vec![inner] })),
    });
    let value = schema::Op {
        content: Some(op::Content::Value(deep)),
    };
    block.checks[0].queries[0].expressions = vec![schema::Expression { ops: vec![value] }];
    parts.blocks[0].block = block.encode_to_vec();
}
