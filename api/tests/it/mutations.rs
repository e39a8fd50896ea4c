//! Valid tokens with random changes: none is accepted, and none makes the api panic.
//!
//! 100,000 of each format; `MUTATIONS` sets another number.

use base64::Engine;
use base64::prelude::{BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use warp::http::header::AUTHORIZATION;
use warp::http::{HeaderMap, HeaderValue};

use crate::hostile::{Judge, keys_of_all_kinds};
use crate::tokens::{Format, Keys, READ_ONLY, attenuate};
use shared::test_support::long_form;

/// The seed of the first thread; the next ones follow.
const SEED: u64 = 20_261_126;

const URL_SAFE: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

#[test]
fn p13_no_mutated_token_is_accepted_and_none_panics() {
    let each = long_form("MUTATIONS", 100_000);
    let keys = keys_of_all_kinds();
    let judge = Judge::new(&keys);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    for format in Format::ALL {
        let originals = originals(&keys, format);
        for token in &originals {
            assert_eq!(read(&judge, token), Some(Ok(())), "as minted");
        }
        // A panic ends its thread and, with the scope, the test.
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (originals, judge) = (&originals, &judge);
                scope.spawn(move || {
                    refused(each.div_ceil(threads), originals, judge, SEED + thread)
                });
            }
        });
        eprintln!("{each} mutated tokens were refused: {format:?}");
    }
}

/// Checks that `count` mutations are refused. A mutation that is a valid token by chance does not count.
fn refused(count: u64, originals: &[String], judge: &Judge, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut done = 0;
    while done < count {
        let original = &originals[random.random_range(0..originals.len())];
        let token = mutated(original, originals, &mut random);
        if is_one_of(&token, originals) {
            continue;
        }
        let said = read(judge, &token);
        assert_ne!(said, Some(Ok(())), "{token}\nmade from\n{original}");
        done += 1;
    }
}

fn originals(keys: &Keys, format: Format) -> Vec<String> {
    let token = |user: i64, role: &str| {
        keys.mint_as(
            format,
            json!({"user_id": user, "role": role, "jti": "shop-1"}),
        )
    };
    let (owner, admin) = (token(42, "customer"), token(7, "admin"));
    match format {
        Format::Jwt => vec![owner, admin],
        Format::Biscuit => {
            let child = attenuate(&owner, READ_ONLY);
            let grandchild = attenuate(&child, r#"check if resource("return", 1)"#);
            vec![owner, admin, child, grandchild]
        }
    }
}

/// The result of the check, or `None` if the text is not a valid header.
fn read(judge: &Judge, token: &str) -> Option<Result<(), &'static str>> {
    let mut headers = HeaderMap::new();
    headers.insert(
        AUTHORIZATION,
        HeaderValue::from_str(&format!("Bearer {token}")).ok()?,
    );
    match api::auth::bearer(&headers, shared::auth::TOKEN_MAX) {
        Ok(token) => Some(judge.read(token)),
        Err(_) => Some(Err("no bearer")),
    }
}

/// Whether it is still a valid token: a Biscuit without its padding, or all three parts of another valid JWT.
fn is_one_of(token: &str, originals: &[String]) -> bool {
    let bytes = |text: &str| {
        if text.contains('.') {
            return Some(text.as_bytes().to_vec());
        }
        let padded = BASE64_URL_SAFE.decode(text);
        padded.or_else(|_| BASE64_URL_SAFE_NO_PAD.decode(text)).ok()
    };
    // `bearer` removes white space.
    let changed = bytes(token.trim());
    changed.is_some() && originals.iter().any(|original| bytes(original) == changed)
}

fn mutated(original: &str, others: &[String], random: &mut StdRng) -> String {
    let mut text = original.to_owned();
    for _ in 0..random.random_range(1..=3) {
        text = mutated_once(&text, others, random);
    }
    text
}

fn mutated_once(text: &str, others: &[String], random: &mut StdRng) -> String {
    let mut bytes = text.as_bytes().to_vec();
    if bytes.is_empty() {
        return "A".to_owned();
    }
    let at = random.random_range(0..bytes.len());
    match random.random_range(0..9) {
        // Flips a bit of the text.
        0 => bytes[at] ^= 1 << random.random_range(0..7),
        // Another letter of the alphabet: most changes are still base64.
        1 => bytes[at] = URL_SAFE[random.random_range(0..URL_SAFE.len())],
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(..at)),
        4 => bytes.insert(at, URL_SAFE[random.random_range(0..URL_SAFE.len())]),
        // Repeats a part.
        5 => {
            let part = bytes[at..bytes.len().min(at + random.random_range(1..64))].to_vec();
            bytes.splice(at..at, part);
        }
        6 => return with_parts_exchanged(text, others, random),
        // Changes a bit, or a piece, of the encoded bytes.
        7 => {
            return with_decoded_changed(text, random, |raw, at, random| {
                raw[at] ^= 1 << random.random_range(0..8)
            });
        }
        _ => {
            return with_decoded_changed(text, random, |raw, at, random| {
                let end = raw.len().min(at + random.random_range(1..16));
                raw.drain(at..end);
            });
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| "no UTF-8".to_owned())
}

/// A JWT's segments in another order or of another token; of a Biscuit, pieces.
fn with_parts_exchanged(text: &str, others: &[String], random: &mut StdRng) -> String {
    let other = &others[random.random_range(0..others.len())];
    let mut parts: Vec<&str> = text.split('.').collect();
    let foreign: Vec<&str> = other.split('.').collect();
    let at = random.random_range(0..parts.len());
    if parts.len() == 1 {
        let at = random.random_range(0..=text.len().min(other.len()));
        return match (text.get(..at), other.get(at..)) {
            (Some(head), Some(tail)) => format!("{head}{tail}"),
            _ => String::new(),
        };
    }
    match random.random_range(0..3) {
        0 => parts.rotate_left(at),
        1 => parts[at] = foreign[random.random_range(0..foreign.len())],
        _ => drop(parts.remove(at)),
    }
    parts.join(".")
}

fn with_decoded_changed(
    text: &str,
    random: &mut StdRng,
    change: fn(&mut Vec<u8>, usize, &mut StdRng),
) -> String {
    let mut parts: Vec<String> = text.split('.').map(str::to_owned).collect();
    let which = random.random_range(0..parts.len());
    let part = &mut parts[which];
    if let Ok(mut raw) = BASE64_URL_SAFE_NO_PAD.decode(part.trim_end_matches('='))
        && !raw.is_empty()
    {
        let at = random.random_range(0..raw.len());
        change(&mut raw, at, random);
        *part = BASE64_URL_SAFE_NO_PAD.encode(raw);
    }
    parts.join(".")
}
