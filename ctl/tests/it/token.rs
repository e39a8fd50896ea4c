//! `token`: what the api honors, narrows and refuses, and keys that never fall apart.

mod biscuits;
mod keygen;
mod revoke;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use jsonwebtoken::{Algorithm, decode_header};
use serde::Deserialize;
use serde_json::Value;
use shared::auth::{AuthArgs, TokenError, Verified, Verifier};
use tempfile::TempDir;
use time::OffsetDateTime;

use crate::harness::{Ran, expect_code, returnsctl};

/// A folder of its own; the defaults of the key paths are relative to it.
struct Place {
    folder: TempDir,
}

#[derive(Debug, Deserialize)]
struct Claims {
    user_id: i64,
    sub: String,
    role: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: uuid::Uuid,
}

const MINT: [&str; 6] = ["token", "mint", "--user", "42", "--role", "customer"];

impl Place {
    fn new() -> Self {
        Self {
            folder: TempDir::new().expect("a folder"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(".stack/keys").join(name)
    }

    fn spawn(&self, more: &[&str]) -> Child {
        returnsctl(&[&MINT, more].concat(), &[])
            .current_dir(self.folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the built program runs")
    }

    #[track_caller]
    fn mint(&self, code: i32, more: &[&str]) -> Ran {
        let ran: Ran = self.spawn(more).wait_with_output().expect("it ends").into();
        assert_eq!(ran.code, code, "{ran:?}");
        ran
    }

    /// As the api checks it.
    fn verify(&self, token: &str) -> Result<Verified, TokenError> {
        let verifier = Verifier::load(&AuthArgs {
            auth_keys_file: self.path("keys.json"),
            auth_issuer: "returns-dev".to_owned(),
            auth_audience: "returns-api".to_owned(),
            auth_leeway_secs: 0,
        });
        verifier.expect("a key set").verify(token)
    }

    /// The kids of the set.
    fn keys(&self) -> Vec<String> {
        let kid = |key: &Value| key["kid"].as_str().expect("a kid").to_owned();
        let set = self.set();
        set["keys"]
            .as_array()
            .expect("keys")
            .iter()
            .map(kid)
            .collect()
    }

    fn set(&self) -> Value {
        let text = fs::read(self.path("keys.json")).expect("the set");
        serde_json::from_slice(&text).expect("JSON")
    }

    /// Runs a command on this folder; the token, if there is one, comes in a file.
    #[track_caller]
    fn token(&self, code: i32, args: &[&str], token: Option<&str>) -> Ran {
        let mut args = [&["token"], args].concat();
        let file = self.folder.path().join("token");
        if let Some(token) = token {
            fs::write(&file, token).expect("write");
            args.extend(["--token-file", file.to_str().expect("UTF-8")]);
        }
        let ran: Ran = returnsctl(&args, &[])
            .current_dir(self.folder.path())
            .output()
            .expect("the built program runs")
            .into();
        assert_eq!(ran.code, code, "{ran:?}");
        ran
    }
}

/// What it says, without looking at its signature.
fn claims(token: &str) -> Claims {
    let data = jsonwebtoken::dangerous::insecure_decode(token);
    data.expect("claims").claims
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

#[test]
fn the_token_stands_alone_on_stdout_and_verifies() {
    let place = Place::new();
    let ran = place.mint(0, &["--ttl", "15m"]);
    assert_eq!(ran.stderr, "");
    let token = ran.stdout.strip_suffix('\n').expect("one line");
    place.verify(token).expect("verifies");
    let claims = claims(token);
    assert_eq!((claims.user_id, claims.sub.as_str()), (42, "42"));
    assert_eq!(claims.role, "customer");
    assert_eq!((claims.nbf, claims.exp - claims.iat), (claims.iat, 900));
    assert_eq!(claims.jti.get_version_num(), 7);
    let now = OffsetDateTime::now_utc().unix_timestamp();
    assert!((now - claims.iat).abs() < 60);
}

#[test]
fn the_key_id_is_stable_and_the_token_id_is_not() {
    for format in ["jwt", "biscuit"] {
        let place = Place::new();
        let [one, other] = [(); 2].map(|()| {
            let token = place.mint(0, &["--format", format]).stdout;
            place.verify(token.trim()).expect("verifies")
        });
        assert_eq!(one.kid(), other.kid(), "{format}");
        assert!(one.token_id().is_some(), "{format}");
        assert_ne!(one.token_id(), other.token_id(), "{format}");
        assert_ne!(one.revocation_id(), other.revocation_id(), "{format}");
    }
    let token = Place::new().mint(0, &[]).stdout;
    let header = decode_header(token.trim()).expect("a header");
    assert_eq!(header.typ.as_deref(), Some("JWT"));
    assert_eq!(header.alg, Algorithm::EdDSA);
}

#[test]
fn the_private_key_is_its_owners_alone() {
    let place = Place::new();
    for (format, file) in [("jwt", "jwt.pem"), ("biscuit", "biscuit.pem")] {
        place.mint(0, &["--format", format]);
        assert_eq!(mode(&place.path(file)), 0o600);
        for open in [0o640, 0o604] {
            fs::set_permissions(place.path(file), Permissions::from_mode(open)).expect("chmod");
            let ran = place.mint(1, &["--format", format]);
            assert!(ran.stderr.contains("chmod 600"), "{}", ran.stderr);
            assert_eq!(ran.stdout, "");
        }
        fs::set_permissions(place.path(file), Permissions::from_mode(0o600)).expect("chmod");
    }
    assert_eq!(mode(&place.path("keys.json")), 0o644);
}

#[test]
fn mints_at_once_make_one_pair() {
    for _ in 0..5 {
        let place = Place::new();
        let formats = ["jwt", "biscuit"].into_iter().cycle().take(8);
        let children: Vec<Child> = formats
            .map(|format| place.spawn(&["--format", format]))
            .collect();
        let mut tokens = Vec::new();
        for child in children {
            let ran: Ran = child.wait_with_output().expect("it ends").into();
            assert_eq!(ran.code, 0, "{ran:?}");
            tokens.push(ran.stdout.trim().to_owned());
        }
        for token in tokens {
            place.verify(&token).expect("one set verifies them all");
        }
        assert_eq!(place.keys().len(), 2, "one of each format");
        let mut files: Vec<_> = fs::read_dir(place.path(""))
            .expect("the folder")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        files.sort();
        assert_eq!(files, ["biscuit.pem", "jwt.pem", "keys.json"]);
    }
}

/// A set that others keep is their trust: a key that may vouch for admins does not slip into it.
#[test]
fn no_key_is_made_unasked_for_a_set_of_others() {
    let place = Place::new();
    place.mint(0, &[]);
    fs::remove_file(place.path("jwt.pem")).expect("remove");
    let before = place.set();
    for format in ["jwt", "biscuit"] {
        let ran = place.mint(1, &["--format", format]);
        assert!(ran.stderr.contains("token keygen"), "{}", ran.stderr);
    }
    assert_eq!(place.set(), before);
}

/// The api must be able to read it afterwards, where it looks for it.
#[test]
fn a_set_keeps_its_mode_and_stays_where_its_link_leads() {
    let place = Place::new();
    place.mint(0, &[]);
    let (link, file) = (place.path("keys.json"), place.path("elsewhere.json"));
    fs::rename(&link, &file).expect("rename");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("chmod");
    std::os::unix::fs::symlink("elsewhere.json", &link).expect("link");
    place.mint(0, &["--format", "biscuit"]);
    assert_eq!((place.keys().len(), mode(&file)), (2, 0o600));
    assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
}

/// Else an operator's umask would lock the api out, and the keys of before would stay in force there.
#[test]
fn a_set_stays_readable_whatever_the_umask() {
    let place = Place::new();
    place.mint(0, &[]);
    assert_eq!(mode(&place.path("keys.json")), 0o644);
    let program = env!("CARGO_BIN_EXE_returnsctl");
    let retire = format!(
        "umask 077; exec '{program}' token retire --kid {}",
        place.keys()[0]
    );
    let ended = std::process::Command::new("/bin/sh")
        .args(["-c", &retire])
        .env_clear()
        .current_dir(place.folder.path())
        .output();
    let ran: Ran = ended.expect("sh runs").into();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        (mode(&place.path("keys.json")), place.keys().len()),
        (0o644, 0)
    );
}

/// Or whoever still has the private half would bring it back.
#[test]
fn a_retired_key_is_not_added_again() {
    let place = Place::new();
    let token = place.mint(0, &[]).stdout;
    place.mint(0, &["--format", "biscuit"]);
    place.token(0, &["retire", "--kid", &place.keys()[0]], None);
    let ran = place.mint(1, &[]);
    assert!(ran.stderr.contains("it was retired"), "{}", ran.stderr);
    assert_eq!(place.keys().len(), 1);
    let refused = place.verify(token.trim()).expect_err("retired");
    assert_eq!(refused.code(), "unknown_key");
    place.mint(0, &["--format", "biscuit"]);
    fs::remove_file(place.path("keys.json")).expect("remove");
    let ran = place.mint(1, &[]);
    assert!(ran.stderr.contains("keygen"), "{}", ran.stderr);
}

#[test]
fn a_file_that_is_no_key_is_refused_without_quoting_it() {
    let place = Place::new();
    place.mint(0, &[]);
    fs::write(place.path("jwt.pem"), "-----BEGIN s3cret").expect("write");
    let ran = place.mint(1, &[]);
    assert!(
        ran.stderr.contains("no Ed25519 private key"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
    fs::write(place.path("keys.json"), "{s3cret").expect("write");
    let ran = place.mint(1, &["--format", "biscuit"]);
    assert!(ran.stderr.contains("not a JWK set"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
    assert!(!place.path("biscuit.pem").exists());
}

#[test]
fn nonsense_is_refused_all_at_once() {
    let args = [
        "token", "mint", "--user", "0", "--role", "boss", "--ttl", "31d", "--format", "paseto",
    ];
    let ran = expect_code(64, &args, &[("AUTH_ISSUER", "")]);
    for part in ["--user", "--role", "--ttl", "--format", "AUTH_ISSUER"] {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    assert_eq!(ran.stdout, "");
}
