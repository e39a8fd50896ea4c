//! The file itself: its length, its permissions, and that nothing repeats its content.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn file(text: &[u8], mode: u32) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), text).expect("write");
    fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).expect("chmod");
    file
}

#[test]
fn a_file_that_is_not_a_key_set_is_refused() {
    let problem = |text: &[u8]| {
        let file = file(text, 0o600);
        KeyRing::load(file.path())
            .expect_err("bad")
            .problem
            .to_string()
    };
    let no_set = "not a JWK set: {\"keys\": [...]} is expected";
    for text in [
        "",
        "-----BEGIN PUBLIC KEY-----",
        "[]",
        "{}",
        r#"{"keys": {}}"#,
        r#"{"keys": []"#,
    ] {
        assert_eq!(problem(text.as_bytes()), no_set, "{text}");
    }
    assert_eq!(problem(&[0xff, 0xfe]), no_set);
    assert_eq!(problem(br#"{"keys": [5]}"#), "key 1: it is not a JWK");
}

/// The set is empty, for example, after the last key was stolen and removed. No program starts with an empty set, see
/// `api::auth::check`.
#[test]
fn a_set_may_be_empty() {
    let encrypts = with(JwtIssuer::rs256("rs").jwk(), &json!({"use": "enc"}));
    for keys in [json!([]), json!([encrypts])] {
        let file = file(json!({ "keys": keys }).to_string().as_bytes(), 0o644);
        let ring = KeyRing::load(file.path()).expect("a set");
        assert!(ring.is_empty() && ring.jwt(None).is_none());
    }
}

#[test]
fn a_file_is_read_up_to_the_longest_length() {
    let set = json!({ "keys": [JwtIssuer::eddsa("ed", 1).jwk()] }).to_string();
    let longest = usize::try_from(KEY_FILE_MAX).expect("64 KiB");
    for (length, good) in [(longest, true), (longest + 1, false)] {
        let padding = " ".repeat(length - set.len());
        let file = file(format!("{set}{padding}").as_bytes(), 0o600);
        let read = KeyRing::load(file.path()).map_err(|error| error.problem.to_string());
        match read {
            Ok(_) => assert!(good, "{length}"),
            Err(why) => assert_eq!((good, why.as_str()), (false, "longer than 65536 bytes")),
        }
    }
}

#[test]
fn only_the_owner_may_read_a_secret_and_everybody_a_public_key() {
    let set = |issuer: &JwtIssuer| json!({ "keys": [issuer.jwk()] }).to_string();
    let [ed, .., hs] = &JwtIssuer::all();
    for (issuer, mode, good) in [
        (ed, 0o644, true),
        (hs, 0o600, true),
        (hs, 0o400, true),
        (hs, 0o640, false),
        (hs, 0o604, false),
        (hs, 0o620, false),
        (ed, 0o664, false),
        (ed, 0o646, false),
    ] {
        let file = file(set(issuer).as_bytes(), mode);
        match KeyRing::load(file.path()) {
            Ok(_) => assert!(good, "{} {mode:o}", issuer.kid),
            Err(error) => {
                let why = match error.problem {
                    KeyProblem::Open => mode & 0o044 != 0,
                    KeyProblem::Writable => mode & 0o022 != 0,
                    _ => false,
                };
                assert!(!good && why, "{mode:o}: {error}");
            }
        }
    }
}

/// A skipped key is a secret as well.
#[test]
fn other_users_may_not_read_a_secret_of_an_unsupported_algorithm() {
    let secret = with(JwtIssuer::hs256("hs", 1).jwk(), &json!({"alg": "HS512"}));
    let file = file(json!({ "keys": [secret] }).to_string().as_bytes(), 0o644);
    let problem = KeyRing::load(file.path()).expect_err("open").problem;
    assert!(matches!(problem, KeyProblem::Open), "{problem}");
}

#[test]
fn the_error_of_a_file_that_cannot_be_read_names_its_path() {
    let error = KeyRing::load(Path::new("/no/such/keys"))
        .expect_err("absent")
        .to_string();
    assert!(
        error.starts_with("AUTH_KEYS_FILE /no/such/keys: "),
        "{error}"
    );
    assert!(error.contains("returnsctl token keygen"), "{error}");
}

#[test]
fn p13_neither_an_error_nor_the_ring_repeats_the_file() {
    let secret = BASE64_URL_SAFE_NO_PAD.encode("s3cret".repeat(6));
    let hs = with(JwtIssuer::hs256("hs", 1).jwk(), &json!({ "k": secret }));
    let ed = JwtIssuer::eddsa("ed", 1).jwk();
    for bad in [
        vec![with(ed.clone(), &json!({ "d": secret }))],
        vec![with(ed.clone(), &json!({ "crv": secret }))],
        vec![with(ed.clone(), &json!({ "kty": secret }))],
        vec![with(ed.clone(), &json!({ "x": secret }))],
        vec![with(ed.clone(), &json!({ "alg": secret }))],
        vec![with(ed.clone(), &json!({ "roles": secret }))],
        vec![with(ed.clone(), &json!({ "kid": [secret] }))],
        vec![with(hs.clone(), &json!({ "alg": "HS512" }))],
        vec![hs.clone(), hs.clone()],
    ] {
        // Refused or skipped.
        let shown = match load(&bad) {
            Err(error) => format!("{error} {error:?}"),
            Ok(verifier) => format!("{verifier:?}"),
        };
        assert!(!shown.contains(&secret), "{shown}");
    }
    let torn = file(format!(r#"{{"keys": [{{"k": "{secret}""#).as_bytes(), 0o600);
    let error = KeyRing::load(torn.path()).expect_err("torn");
    assert!(!format!("{error} {error:?}").contains(&secret));
    let verifier = verifier(&[hs]);
    assert!(!format!("{verifier:?} {:?}", verifier.keys()).contains(&secret));
}
