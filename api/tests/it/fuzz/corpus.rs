//! The corpus: `tests/corpus/<target>/<name>`. `good-…` is accepted, `bad-…` is refused.
//!
//! `WRITE_CORPUS=1 cargo test -p api --test it corpus` generates the inputs that are made from tokens again; findings of
//! fuzz runs are added by hand and stay.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::{BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
use serde_json::json;
use shared::auth::check_structure;

use crate::hostile::{attacks, keys_of_all_kinds};
use crate::tokens::{Format, READ_ONLY, attenuate};
use shared::test_support::long_form;

fn folder(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "corpus", target]
        .iter()
        .collect()
}

/// All inputs of a target, by name.
pub(super) fn read(target: &str) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder(target)).expect("the corpus is there");
    let files = files.map(|file| file.expect("a file").path());
    files
        .map(|path| {
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            (name, fs::read(path).expect("read"))
        })
        .collect()
}

#[test]
fn the_corpus_of_vet_is_accepted_or_refused_as_its_names_say() {
    if long_form("WRITE_CORPUS", 0) == 1 {
        write();
    }
    let corpus = read("vet");
    assert!(corpus.keys().any(|name| name.starts_with("good-")));
    for (name, raw) in corpus {
        assert_eq!(
            check_structure(&raw).is_ok(),
            name.starts_with("good-"),
            "{name}: {:?}",
            check_structure(&raw)
        );
    }
}

/// Writes every attack on Biscuits that is base64, valid Biscuits, and each kind of header.
fn write() {
    let keys = keys_of_all_kinds();
    let mint = |format| {
        keys.mint_as(
            format,
            json!({"user_id": 42, "role": "customer", "jti": "shop-1"}),
        )
    };
    let (jwt, biscuit) = (mint(Format::Jwt), mint(Format::Biscuit));
    let child = attenuate(&biscuit, READ_ONLY);
    let grandchild = attenuate(
        &child,
        r#"check if time($t), $t < 2030-01-01T00:00:00Z or resource("return", 1)"#,
    );
    let good = [
        ("one block", &biscuit),
        ("two blocks", &child),
        ("three blocks", &grandchild),
    ];
    for (name, token) in good {
        keep(
            "vet",
            name,
            "bin",
            &BASE64_URL_SAFE.decode(token).expect("base64"),
        );
    }
    for (name, token, _) in attacks(keys.issuer()) {
        let token = token.trim_end_matches('=');
        if let Ok(raw) = BASE64_URL_SAFE_NO_PAD.decode(token)
            && raw.len() > 100
            && raw.len() < 5000
        {
            keep("vet", &name, "bin", &raw);
        }
    }
    // A field that no reader knows makes a good token too long.
    let unknown_field = [&[0x7a, 0x90, 0x4e][..], &[b'x'; 10_000]].concat();
    let raw = BASE64_URL_SAFE.decode(&biscuit).expect("base64");
    keep("vet", "too long", "bin", &[raw, unknown_field].concat());
    for (name, text) in [
        ("a JWT", format!("Bearer {jwt}")),
        ("a Biscuit", format!("Bearer {grandchild}")),
        ("small letters", format!("bearer {jwt}")),
        ("spaces around", format!("Bearer   {jwt}  ")),
        ("two", format!("Bearer {jwt}\nBearer {jwt}")),
        ("two in a line", "Bearer a, Bearer b".to_owned()),
        ("basic", "Basic eDp5".to_owned()),
        ("no token", "Bearer ".to_owned()),
        ("no space", "Bearer".to_owned()),
        ("a tab", "Bearer\tabc".to_owned()),
        ("longest", format!("Bearer {}", "a".repeat(4096))),
        ("too long", format!("Bearer {}", "a".repeat(4097))),
        ("none", String::new()),
    ] {
        keep("bearer", name, "txt", text.as_bytes());
    }
}

fn keep(target: &str, name: &str, kind: &str, content: &[u8]) {
    let words: Vec<String> = name
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    let name = match (target, check_structure(content).is_ok()) {
        ("vet", true) => format!("good-{}", words.join("-")),
        ("vet", false) => format!("bad-{}", words.join("-")),
        _ => words.join("-"),
    };
    fs::write(folder(target).join(format!("{name}.{kind}")), content).expect("write");
}
