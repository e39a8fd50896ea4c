//! `token`: tokens that the api accepts or refuses, narrowed tokens, and key files that stay consistent.

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
struct KeyFolder {
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

impl KeyFolder {
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
            auth_token_max_bytes: 4096,
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

/// The content of the token; the signature is not checked.
fn claims(token: &str) -> Claims {
    let data = jsonwebtoken::dangerous::insecure_decode(token);
    data.expect("claims").claims
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

#[test]
fn the_token_is_the_only_output_and_verifies() {
    let folder = KeyFolder::new();
    let ran = folder.mint(0, &["--ttl", "15m"]);
    assert_eq!(ran.stderr, "");
    let token = ran.stdout.strip_suffix('\n').expect("one line");
    folder.verify(token).expect("verifies");
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
        let folder = KeyFolder::new();
        let [one, other] = [(); 2].map(|()| {
            let token = folder.mint(0, &["--format", format]).stdout;
            folder.verify(token.trim()).expect("verifies")
        });
        assert_eq!(one.kid(), other.kid(), "{format}");
        assert!(one.token_id().is_some(), "{format}");
        assert_ne!(one.token_id(), other.token_id(), "{format}");
        assert_ne!(one.revocation_id(), other.revocation_id(), "{format}");
    }
    let token = KeyFolder::new().mint(0, &[]).stdout;
    let header = decode_header(token.trim()).expect("a header");
    assert_eq!(header.typ.as_deref(), Some("JWT"));
    assert_eq!(header.alg, Algorithm::EdDSA);
}

#[test]
fn the_private_key_is_its_owners_alone() {
    let folder = KeyFolder::new();
    for (format, file) in [("jwt", "jwt.pem"), ("biscuit", "biscuit.pem")] {
        folder.mint(0, &["--format", format]);
        assert_eq!(mode(&folder.path(file)), 0o600);
        for open in [0o640, 0o604] {
            fs::set_permissions(folder.path(file), Permissions::from_mode(open)).expect("chmod");
            let ran = folder.mint(1, &["--format", format]);
            assert!(ran.stderr.contains("chmod 600"), "{}", ran.stderr);
            assert_eq!(ran.stdout, "");
        }
        fs::set_permissions(folder.path(file), Permissions::from_mode(0o600)).expect("chmod");
    }
    assert_eq!(mode(&folder.path("keys.json")), 0o644);
}

#[test]
fn concurrent_mints_make_one_pair() {
    for _ in 0..5 {
        let folder = KeyFolder::new();
        let formats = ["jwt", "biscuit"].into_iter().cycle().take(8);
        let children: Vec<Child> = formats
            .map(|format| folder.spawn(&["--format", format]))
            .collect();
        let mut tokens = Vec::new();
        for child in children {
            let ran: Ran = child.wait_with_output().expect("it ends").into();
            assert_eq!(ran.code, 0, "{ran:?}");
            tokens.push(ran.stdout.trim().to_owned());
        }
        for token in tokens {
            folder.verify(&token).expect("one set verifies them all");
        }
        assert_eq!(folder.keys().len(), 2, "one of each format");
        let mut files: Vec<_> = fs::read_dir(folder.path(""))
            .expect("the folder")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        files.sort();
        assert_eq!(files, ["biscuit.pem", "jwt.pem", "keys.json"]);
    }
}

/// The owners of a set decide which keys it trusts: `mint` must not add a key that could sign for admins.
#[test]
fn no_key_is_added_without_a_command_to_a_set_of_others() {
    let folder = KeyFolder::new();
    folder.mint(0, &[]);
    fs::remove_file(folder.path("jwt.pem")).expect("remove");
    let before = folder.set();
    for format in ["jwt", "biscuit"] {
        let ran = folder.mint(1, &["--format", format]);
        assert!(ran.stderr.contains("token keygen"), "{}", ran.stderr);
    }
    assert_eq!(folder.set(), before);
}

/// The api must still be able to read the set, at the same path.
#[test]
fn a_set_keeps_its_mode_and_its_link() {
    let folder = KeyFolder::new();
    folder.mint(0, &[]);
    let (link, file) = (folder.path("keys.json"), folder.path("elsewhere.json"));
    fs::rename(&link, &file).expect("rename");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("chmod");
    std::os::unix::fs::symlink("elsewhere.json", &link).expect("link");
    folder.mint(0, &["--format", "biscuit"]);
    assert_eq!((folder.keys().len(), mode(&file)), (2, 0o600));
    assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
}

/// Otherwise the umask could make the file unreadable for the api, which would keep the old keys.
#[test]
fn a_set_stays_readable_with_any_umask() {
    let folder = KeyFolder::new();
    folder.mint(0, &[]);
    assert_eq!(mode(&folder.path("keys.json")), 0o644);
    let program = env!("CARGO_BIN_EXE_returnsctl");
    let retire = format!(
        "umask 077; exec '{program}' token retire --kid {}",
        folder.keys()[0]
    );
    let ended = std::process::Command::new("/bin/sh")
        .args(["-c", &retire])
        .env_clear()
        .current_dir(folder.folder.path())
        .output();
    let ran: Ran = ended.expect("sh runs").into();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        (mode(&folder.path("keys.json")), folder.keys().len()),
        (0o644, 0)
    );
}

/// Otherwise a person who still has the private key could bring it back.
#[test]
fn a_retired_key_is_not_added_again() {
    let folder = KeyFolder::new();
    let token = folder.mint(0, &[]).stdout;
    folder.mint(0, &["--format", "biscuit"]);
    folder.token(0, &["retire", "--kid", &folder.keys()[0]], None);
    let ran = folder.mint(1, &[]);
    assert!(ran.stderr.contains("it was retired"), "{}", ran.stderr);
    assert_eq!(folder.keys().len(), 1);
    let refused = folder.verify(token.trim()).expect_err("retired");
    assert_eq!(refused.code(), "unknown_key");
    folder.mint(0, &["--format", "biscuit"]);
    fs::remove_file(folder.path("keys.json")).expect("remove");
    let ran = folder.mint(1, &[]);
    assert!(ran.stderr.contains("keygen"), "{}", ran.stderr);
}

#[test]
fn a_file_that_is_no_key_is_refused_without_quoting_it() {
    let folder = KeyFolder::new();
    folder.mint(0, &[]);
    fs::write(folder.path("jwt.pem"), "-----BEGIN s3cret").expect("write");
    let ran = folder.mint(1, &[]);
    assert!(
        ran.stderr.contains("no Ed25519 private key"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
    fs::write(folder.path("keys.json"), "{s3cret").expect("write");
    let ran = folder.mint(1, &["--format", "biscuit"]);
    assert!(ran.stderr.contains("not a JWK set"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
    assert!(!folder.path("biscuit.pem").exists());
}

#[test]
fn every_bad_argument_is_listed() {
    let args = [
        "token", "mint", "--user", "0", "--role", "boss", "--ttl", "31d", "--format", "paseto",
    ];
    let ran = expect_code(64, &args, &[("AUTH_ISSUER", "")]);
    for part in ["--user", "--role", "--ttl", "--format", "AUTH_ISSUER"] {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    assert_eq!(ran.stdout, "");
}
