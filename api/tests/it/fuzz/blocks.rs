//! Signed blocks as a hostile holder may write them, in the bytes of the format instead of Datalog.

use biscuit_auth::format::schema::{
    self, Array, Check, Expression, MapEntry, MapKey, Op, OpBinary, OpClosure, OpUnary, Predicate,
    Rule, Term, TermSet, map_key, op, proof, public_key, scope, term,
};
use ed25519_dalek::{Signer, SigningKey};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;

/// Names of facts of the issuer or the server, and of unknown facts, by their numbers in the format: the format's own
/// names first, the token's names from 1024 on.
fn name() -> impl Strategy<Value = u64> {
    prop_oneof![60 => 0..28_u64, 60 => 1024..1032_u64, 1 => any::<u64>()]
}

fn scalar() -> impl Strategy<Value = Term> {
    use term::Content;
    let content = prop_oneof![
        6 => (0..6_u32).prop_map(Content::Variable),
        3 => select(vec![0, 1, 2, 7, 42, -1, i64::MAX, i64::MIN]).prop_map(Content::Integer),
        3 => name().prop_map(Content::String),
        2 => select(vec![0, 1, 1_900_000_000, u64::MAX]).prop_map(Content::Date),
        1 => vec(any::<u8>(), 0..6).prop_map(Content::Bytes),
        2 => any::<bool>().prop_map(Content::Bool),
        1 => Just(Content::Null(schema::Empty {})),
    ];
    prop_oneof![400 => content.prop_map(Some), 1 => Just(None)].prop_map(|content| Term { content })
}

fn term() -> impl Strategy<Value = Term> {
    use term::Content;
    scalar().prop_recursive(3, 24, 6, |inner| {
        let key = prop_oneof![
            any::<i64>().prop_map(map_key::Content::Integer),
            name().prop_map(map_key::Content::String)
        ];
        let entry = (key, inner.clone()).prop_map(|(key, value)| MapEntry {
            key: MapKey { content: Some(key) },
            value,
        });
        let content = prop_oneof![
            vec(inner.clone(), 0..6).prop_map(|set| Content::Set(TermSet { set })),
            vec(inner, 0..6).prop_map(|array| Content::Array(Array { array })),
            vec(entry, 0..4).prop_map(|entries| Content::Map(schema::Map { entries })),
        ];
        content.prop_map(|content| Term {
            content: Some(content),
        })
    })
}

fn predicate() -> impl Strategy<Value = Predicate> {
    (name(), vec(scalar(), 0..3)).prop_map(|(name, terms)| Predicate { name, terms })
}

/// The facts of a valid token, by the format's own numbers: operation, time, role and user; resource and owner.
fn true_predicate() -> impl Strategy<Value = Predicate> {
    let known = select(vec![(3, 1), (5, 1), (6, 1), (10, 1), (2, 2), (7, 2)]);
    (known, vec(0..4_u32, 2)).prop_map(|((name, arity), variables)| Predicate {
        name,
        terms: variables.into_iter().take(arity).map(variable).collect(),
    })
}

fn variable(number: u32) -> Term {
    Term {
        content: Some(term::Content::Variable(number)),
    }
}

/// Operations in the order in which a stack machine needs them, mostly.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    let value = term().prop_map(|term| {
        vec![Op {
            content: Some(op::Content::Value(term)),
        }]
    });
    value.prop_recursive(4, 40, 2, |inner| {
        let unary = |ops: Vec<Op>, kind: i32| {
            let unary = OpUnary {
                kind,
                ffi_name: None,
            };
            [
                ops,
                vec![Op {
                    content: Some(op::Content::Unary(unary)),
                }],
            ]
            .concat()
        };
        let binary = |left: Vec<Op>, right: Vec<Op>, kind: i32| {
            let binary = OpBinary {
                kind,
                ffi_name: None,
            };
            [
                left,
                right,
                vec![Op {
                    content: Some(op::Content::Binary(binary)),
                }],
            ]
            .concat()
        };
        let closure = |ops: Vec<Op>, params: Vec<u32>| {
            vec![Op {
                content: Some(op::Content::Closure(OpClosure { params, ops })),
            }]
        };
        // All except regular expressions (8) and foreign functions (28), which are rare.
        let plain: Vec<i32> = (0..30).filter(|kind| ![8, 28].contains(kind)).collect();
        prop_oneof![
            30 => (inner.clone(), 0..4_i32).prop_map(move |(ops, kind)| unary(ops, kind)),
            200 => (inner.clone(), inner.clone(), select(plain))
                .prop_map(move |(left, right, kind)| binary(left, right, kind)),
            1 => (inner.clone(), inner.clone(), prop_oneof![Just(8), Just(28), any::<i32>()])
                .prop_map(move |(left, right, kind)| binary(left, right, kind)),
            1 => (inner, vec(0..6_u32, 0..3)).prop_map(move |(ops, params)| closure(ops, params)),
        ]
    })
}

fn query() -> impl Strategy<Value = Rule> {
    let head = Predicate {
        name: 27,
        terms: Vec::new(),
    };
    let body = vec(prop_oneof![4 => true_predicate(), 2 => predicate()], 0..5);
    let expressions = vec(
        prop_oneof![2 => ops(), 3 => comparison()].prop_map(|ops| Expression { ops }),
        0..4,
    );
    let scope = prop_oneof![
        400 => Just(Vec::new()),
        1 => Just(vec![schema::Scope { content: Some(scope::Content::ScopeType(1)) }]),
    ];
    (body, expressions, scope).prop_map(move |(body, expressions, scope)| Rule {
        head: head.clone(),
        body,
        expressions,
        scope,
    })
}

/// Compares a variable with something: sometimes true.
fn comparison() -> impl Strategy<Value = Vec<Op>> {
    let value = |content| Op {
        content: Some(op::Content::Value(Term {
            content: Some(content),
        })),
    };
    (0..4_u32, scalar(), select(vec![0, 1, 4, 20, 21, 22])).prop_map(
        move |(variable, other, kind)| {
            vec![
                value(term::Content::Variable(variable)),
                Op {
                    content: Some(op::Content::Value(other)),
                },
                Op {
                    content: Some(op::Content::Binary(OpBinary {
                        kind,
                        ffi_name: None,
                    })),
                },
            ]
        },
    )
}

fn check() -> impl Strategy<Value = Check> {
    let kind = option::of(prop_oneof![100 => 0..3_i32, 1 => any::<i32>()]);
    (vec(query(), 0..4), kind).prop_map(|(queries, kind)| Check { queries, kind })
}

/// Mostly only checks, of the latest version.
fn block() -> impl Strategy<Value = schema::Block> {
    let facts = prop_oneof![
        40 => Just(Vec::new()),
        1 => vec(predicate().prop_map(|predicate| schema::Fact { predicate }), 1..3),
    ];
    let rules = prop_oneof![40 => Just(Vec::new()), 1 => vec(query(), 1..3)];
    let version = prop_oneof![100 => Just(Some(6)), 1 => option::of(0..9_u32)];
    (vec(check(), 0..4), facts, rules, version).prop_map(|(checks, facts, rules, version)| {
        schema::Block {
            symbols: Vec::new(),
            context: None,
            version,
            facts,
            rules,
            checks,
            scope: Vec::new(),
            public_keys: Vec::new(),
        }
    })
}

/// One to three of them; the first has names of its own.
pub(super) fn blocks() -> impl Strategy<Value = Vec<schema::Block>> {
    vec(block(), 1..4).prop_map(|mut blocks| {
        blocks[0].symbols = ["access", "return", "earliest", "a"]
            .map(str::to_owned)
            .into();
        blocks
    })
}

/// Tokens without an issuer, with these blocks.
pub(super) fn tokens() -> impl Strategy<Value = Vec<u8>> {
    let unknown_key = key(0);
    let first = schema::Biscuit {
        root_key_id: Some(1),
        authority: signed(&unknown_key, Vec::new(), &unknown_key),
        blocks: Vec::new(),
        proof: schema::Proof {
            content: Some(proof::Content::NextSecret(unknown_key.to_bytes().to_vec())),
        },
    };
    let first = first.encode_to_vec();
    blocks().prop_map(move |blocks| {
        blocks
            .iter()
            .fold(first.clone(), |raw, block| sign(&raw, block))
    })
}

/// The token with one more block of any content, signed by its holder.
pub(super) fn sign(raw: &[u8], block: &schema::Block) -> Vec<u8> {
    let mut token = schema::Biscuit::decode(raw).expect("a Biscuit");
    let Some(proof::Content::NextSecret(secret)) = &token.proof.content else {
        panic!("it is sealed");
    };
    let signer = SigningKey::from_bytes(secret.as_slice().try_into().expect("32 bytes"));
    let next = key(1 + token.blocks.len());
    token
        .blocks
        .push(signed(&signer, block.encode_to_vec(), &next));
    token.proof.content = Some(proof::Content::NextSecret(next.to_bytes().to_vec()));
    token.encode_to_vec()
}

/// Always the same keys, so that a failure can be repeated.
fn key(number: usize) -> SigningKey {
    SigningKey::from_bytes(&[u8::try_from(number).expect("few"); 32])
}

/// The format's first version: over the block, the kind of the next key and the next key.
fn signed(signer: &SigningKey, block: Vec<u8>, next: &SigningKey) -> schema::SignedBlock {
    let algorithm = public_key::Algorithm::Ed25519 as i32;
    let next = next.verifying_key().to_bytes();
    let signature = signer.sign(&[&block[..], &algorithm.to_le_bytes(), &next].concat());
    schema::SignedBlock {
        block,
        next_key: schema::PublicKey {
            algorithm,
            key: next.to_vec(),
        },
        signature: signature.to_bytes().to_vec(),
        external_signature: None,
        version: None,
    }
}
