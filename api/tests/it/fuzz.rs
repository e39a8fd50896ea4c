//! Three fuzz targets on stable Rust: `check_structure` on bytes, `bearer` on headers, and the policy's decision on signed
//! hostile blocks.
//!
//! Two seconds each by default; `FUZZ_SECS=300 cargo test -p api --test it fuzz -- --nocapture --test-threads 1`
//! is the long form. The sequence of inputs is always the same: a longer run gets further. Findings of a run
//! go into `tests/corpus`, from which mutations start and which every run tries first.

mod blocks;
mod corpus;

use std::cell::Cell;
use std::time::{Duration, Instant};

use api::auth::{NoBearer, bearer};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE;
use biscuit_auth::UnverifiedBiscuit;
use biscuit_auth::format::schema;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};
use prost::Message;
use serde_json::json;
use shared::auth::{BISCUIT_MAX, Operation, Request, TOKEN_MAX, Verified, check_structure};
use shared::domain::ids::{CustomerId, ReturnId};
use warp::http::header::AUTHORIZATION;
use warp::http::{HeaderMap, HeaderValue};

use crate::harness::CUSTOMER;
use crate::hostile::{CPU_MAX, Judge, cpu_time, cpu_time_on, keys_of_all_kinds};
use crate::tokens::Format;
use shared::test_support::long_form;

/// At least 200 inputs, so that each target sees every kind of input on a slow machine too.
const ROUNDS_MIN: u64 = 5;

/// Runs `test` on inputs of `strategy`, for the time of the long form or of the default.
fn fuzz<S: Strategy>(strategy: &S, test: impl Fn(S::Value) -> TestCaseResult) {
    let lasting = Duration::from_secs(long_form("FUZZ_SECS", 2));
    let config = Config {
        cases: 200,
        failure_persistence: None,
        ..Config::default()
    };
    let begun = Instant::now();
    for round in 1_u64.. {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&round.to_le_bytes());
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let mut runner = TestRunner::new_with_rng(config.clone(), random);
        if let Err(failure) = runner.run(strategy, &test) {
            panic!("round {round}: {failure}");
        }
        if round >= ROUNDS_MIN && begun.elapsed() >= lasting {
            return;
        }
    }
}

/// How often something was seen. A target that sees nothing of interest fails.
#[derive(Default)]
struct Seen(Cell<u64>);

impl Seen {
    fn note(&self) {
        self.0.set(self.0.get() + 1);
    }

    fn count(&self) -> u64 {
        self.0.get()
    }
}

#[test]
fn p13_the_structure_check_accepts_only_small_checks() {
    let (all, passed) = (Seen::default(), Seen::default());
    let try_one = |raw: &[u8]| {
        all.note();
        if check_structure(raw).is_ok() {
            passed.note();
            is_small(raw)?;
            // The library must also handle each accepted block, no matter who signed it.
            let _ = UnverifiedBiscuit::from(raw);
        }
        prop_assert!(
            cpu_time(|| check_structure(raw)) < CPU_MAX,
            "it takes too long"
        );
        Ok(())
    };
    let seeds = corpus::read("vet");
    for (name, raw) in &seeds {
        try_one(raw).unwrap_or_else(|failure| panic!("{name}: {failure}"));
    }
    let seeds: Vec<Vec<u8>> = seeds.into_values().collect();
    let mutated =
        (select(seeds), vec(any::<Edit>(), 0..6)).prop_map(|(seed, edits)| apply(seed, &edits));
    let inputs = prop_oneof![8 => mutated, 1 => vec(any::<u8>(), 0..400), 1 => blocks::tokens()];
    fuzz(&inputs, |raw| try_one(&raw));
    eprintln!(
        "vet: {} inputs, {} let through",
        all.count(),
        passed.count()
    );
    assert!(passed.count() > 50 && passed.count() < all.count());
}

/// The promise of `check_structure`, checked from the bytes again.
fn is_small(raw: &[u8]) -> TestCaseResult {
    prop_assert!(raw.len() <= BISCUIT_MAX);
    let token = schema::Biscuit::decode(raw).expect("it was read before");
    prop_assert!(token.blocks.len() <= 3, "with the issuer's they are four");
    let ed25519 = schema::public_key::Algorithm::Ed25519 as i32;
    prop_assert_eq!(token.authority.next_key.algorithm, ed25519);
    for signed in &token.blocks {
        prop_assert_eq!(signed.next_key.algorithm, ed25519);
        prop_assert!(signed.external_signature.is_none());
        let block = schema::Block::decode(&signed.block[..]).expect("it was read before");
        prop_assert!(block.facts.is_empty() && block.rules.is_empty());
        prop_assert!(block.scope.is_empty() && block.public_keys.is_empty());
        prop_assert!(block.checks.len() <= 8);
        for query in block.checks.iter().flat_map(|check| &check.queries) {
            prop_assert!(query.scope.is_empty() && query.body.len() <= 4);
            let ops = query
                .expressions
                .iter()
                .flat_map(|expression| &expression.ops);
            prop_assert!(query.expressions.len() <= 4 && ops.clone().count() <= 4 * 32);
            prop_assert!(
                ops.clone().all(is_plain),
                "a closure, a regular expression, or foreign"
            );
        }
    }
    Ok(())
}

fn is_plain(op: &schema::Op) -> bool {
    use schema::op::Content;
    use schema::{op_binary, op_unary};
    match &op.content {
        Some(Content::Value(_)) => true,
        Some(Content::Unary(unary)) => unary.kind != op_unary::Kind::Ffi as i32,
        Some(Content::Binary(binary)) => {
            ![op_binary::Kind::Ffi as i32, op_binary::Kind::Regex as i32].contains(&binary.kind)
        }
        Some(Content::Closure(_)) | None => false,
    }
}

#[test]
fn p13_bearer_accepts_the_token_of_one_header_and_nothing_else() {
    let (all, taken) = (Seen::default(), Seen::default());
    let try_one = |values: &[Vec<u8>]| {
        let mut headers = HeaderMap::new();
        headers.insert("cookie", HeaderValue::from_static("token=x"));
        for value in values {
            // Text that is no valid header is refused earlier.
            let Ok(value) = HeaderValue::from_bytes(value) else {
                return Ok(());
            };
            headers.append(AUTHORIZATION, value);
        }
        all.note();
        match bearer(&headers, TOKEN_MAX) {
            Ok(token) => {
                taken.note();
                prop_assert_eq!(values.len(), 1);
                let value = std::str::from_utf8(&values[0]).expect("what was taken is ASCII");
                prop_assert!(
                    value
                        .get(..7)
                        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer "))
                );
                prop_assert_eq!(value[7..].trim(), token);
                prop_assert!((1..=TOKEN_MAX).contains(&token.len()));
            }
            Err(NoBearer::Missing) => prop_assert!(values.is_empty()),
            Err(NoBearer::Malformed) => prop_assert!(!is_plain_bearer(values), "{values:?}"),
        }
        Ok(())
    };
    let seeds = corpus::read("bearer");
    let lines = |text: &[u8]| -> Vec<Vec<u8>> {
        let lines = text.split(|byte| *byte == b'\n');
        lines
            .filter(|line| !line.is_empty())
            .map(<[u8]>::to_vec)
            .collect()
    };
    for (name, text) in &seeds {
        try_one(&lines(text)).unwrap_or_else(|failure| panic!("{name}: {failure}"));
    }
    let seeds: Vec<Vec<Vec<u8>>> = seeds.values().map(|text| lines(text)).collect();
    let mutated = (select(seeds), vec(any::<Edit>(), 0..4)).prop_map(|(mut values, edits)| {
        if let Some(first) = values.first_mut() {
            *first = apply(std::mem::take(first), &edits);
        }
        values
    });
    let spelt = "[Bb][Ee][Aa][Rr][Ee][Rr][ \\t]{0,3}[!-~]{0,40}[ \\t]{0,2}";
    let spelt = vec(spelt.prop_map(String::into_bytes), 0..3);
    let inputs = prop_oneof![4 => mutated, 4 => spelt, 1 => vec(vec(any::<u8>(), 0..100), 0..3)];
    fuzz(&inputs, |values| try_one(&values));
    eprintln!(
        "bearer: {} inputs, {} tokens taken",
        all.count(),
        taken.count()
    );
    assert!(taken.count() > 50 && taken.count() < all.count());
}

/// A plain header as every client sends it, which `bearer` must accept.
fn is_plain_bearer(values: &[Vec<u8>]) -> bool {
    let [value] = values else { return false };
    let token = value.strip_prefix(b"Bearer ").unwrap_or_default();
    (1..=TOKEN_MAX).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic)
}

/// The holder of a token can sign any block. A block that `check_structure` accepts can only remove permissions, at
/// little cost.
#[test]
fn p13_no_signed_block_turns_a_denial_into_a_permission_or_costs_much() {
    let keys = keys_of_all_kinds();
    let judge = Judge::new(&keys);
    let parents: Vec<(String, Verified)> = [(42, "customer"), (7, "admin"), (8, "auditor")]
        .map(|(user, role)| {
            let token = keys.mint_as(Format::Biscuit, json!({"user_id": user, "role": role}));
            let verified = judge.verifier.verify(&token).expect("good");
            (token, verified)
        })
        .into();
    let [all, evaluated, allowed, narrowed] = [(); 4].map(|()| Seen::default());
    let dearest = Cell::new(Duration::ZERO);
    let inputs = (0..parents.len(), blocks::blocks());
    fuzz(&inputs, |(parent, blocks)| {
        all.note();
        let (token, parent) = &parents[parent];
        let raw = BASE64_URL_SAFE.decode(token).expect("base64");
        let raw = blocks
            .iter()
            .fold(raw, |raw, block| blocks::sign(&raw, block));
        let token = BASE64_URL_SAFE.encode(&raw);
        let verified = judge.verifier.verify(&token);
        if check_structure(&raw).is_err() {
            prop_assert!(verified.is_err());
            return Ok(());
        }
        let Ok(child) = verified else { return Ok(()) };
        evaluated.note();
        for request in requests() {
            let child_may = judge.policy.decide(&child, &request).is_ok();
            let parent_may = judge.policy.decide(parent, &request).is_ok();
            prop_assert!(parent_may || !child_may, "{request:?} by {token}");
            if child_may {
                allowed.note();
            } else if parent_may {
                narrowed.note();
            }
        }
        let request = requests()[0];
        // Decisions about a token are cached with it for a second.
        let verify_again = || judge.verifier.verify(&token).expect("good a moment ago");
        let decide = |child: &Verified| judge.policy.decide(child, &request).is_ok();
        let took = cpu_time_on(verify_again, decide);
        prop_assert!(took < DECISION_MAX, "{took:?} for {token}");
        dearest.set(dearest.get().max(took));
        Ok(())
    });
    let counts = [&all, &evaluated, &allowed, &narrowed].map(Seen::count);
    let [all, evaluated, allowed, narrowed] = counts;
    eprintln!(
        "signed blocks: {all} tokens, {evaluated} evaluated in at most {:?} each, {allowed} requests allowed, \
         {narrowed} taken away",
        dearest.get()
    );
    assert!(
        evaluated > 100 && allowed > 20 && narrowed > 20,
        "{counts:?}"
    );
}

/// The limit for one decision on three blocks full of checks, in a build without optimization.
const DECISION_MAX: Duration = Duration::from_millis(5);

fn requests() -> [Request; 5] {
    let read = |owner| Request::about(Operation::ReturnsRead, ReturnId(1), owner);
    [
        read(Some(CUSTOMER)),
        read(Some(CustomerId(43))),
        read(None),
        Request::of(Operation::ReturnsCreate),
        Request::of(Operation::ReturnsList),
    ]
}

/// A change of bytes.
#[derive(Debug, Clone)]
enum Edit {
    Flip(Index, u8),
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, u8),
    Repeat(Index, u8),
}

impl Arbitrary for Edit {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        let at = any::<Index>;
        prop_oneof![
            (at(), 0..8_u8).prop_map(|(at, bit)| Self::Flip(at, bit)),
            (at(), any::<u8>()).prop_map(|(at, byte)| Self::Set(at, byte)),
            (at(), vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Self::Insert(at, bytes)),
            (at(), 1..32_u8).prop_map(|(at, length)| Self::Remove(at, length)),
            (at(), 1..64_u8).prop_map(|(at, length)| Self::Repeat(at, length)),
        ]
        .boxed()
    }
}

fn apply(mut bytes: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for edit in edits {
        bytes = edit.of(bytes);
    }
    bytes
}

impl Edit {
    fn of(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        if bytes.is_empty() {
            return bytes;
        }
        let length = bytes.len();
        let end = |at: usize, count: u8| length.min(at + usize::from(count));
        match self {
            Self::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
            Self::Set(at, byte) => bytes[at.index(length)] = *byte,
            Self::Insert(at, more) => {
                let at = at.index(length);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Remove(at, count) => {
                let at = at.index(length);
                bytes.drain(at..end(at, *count));
            }
            Self::Repeat(at, count) => {
                let at = at.index(length);
                let again = bytes[at..end(at, *count)].to_vec();
                bytes.splice(at..at, again);
            }
        }
        bytes
    }
}
