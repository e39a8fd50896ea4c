//! `token mint`: tokens that the public half verifies, and a key pair that never falls apart.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
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
    fn verify(&self, token: &str) -> jsonwebtoken::errors::Result<Claims> {
        let pem = fs::read(self.path("jwt.pub.pem")).expect("the public half");
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&["returns-api"]);
        validation.set_issuer(&["returns-dev"]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        let key = DecodingKey::from_ed_pem(&pem).expect("a public key");
        decode(token, &key, &validation).map(|data| data.claims)
    }
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
    let claims = place.verify(token).expect("verifies");
    assert_eq!((claims.user_id, claims.sub.as_str()), (42, "42"));
    assert_eq!(claims.role, "customer");
    assert_eq!((claims.nbf, claims.exp - claims.iat), (claims.iat, 900));
    assert_eq!(claims.jti.get_version_num(), 7);
    let now = OffsetDateTime::now_utc().unix_timestamp();
    assert!((now - claims.iat).abs() < 60);
}

#[test]
fn the_key_id_is_stable_and_the_token_id_is_not() {
    let place = Place::new();
    let tokens: Vec<String> = (0..2)
        .map(|_| place.mint(0, &[]).stdout.trim().to_owned())
        .collect();
    let headers: Vec<_> = tokens
        .iter()
        .map(|token| decode_header(token).expect("a header"))
        .collect();
    assert_eq!(headers[0].typ.as_deref(), Some("JWT"));
    assert_eq!(headers[0].alg, Algorithm::EdDSA);
    assert_eq!(headers[0].kid.as_deref().map(str::len), Some(16));
    assert_eq!(headers[0].kid, headers[1].kid);
    let ids: Vec<_> = tokens
        .iter()
        .map(|token| place.verify(token).expect("verifies").jti)
        .collect();
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn the_private_key_is_its_owners_alone() {
    let place = Place::new();
    place.mint(0, &[]);
    assert_eq!(mode(&place.path("jwt.pem")), 0o600);
    assert_eq!(mode(&place.path("jwt.pub.pem")), 0o644);
    for open in [0o640, 0o604] {
        fs::set_permissions(place.path("jwt.pem"), Permissions::from_mode(open)).expect("chmod");
        let ran = place.mint(1, &[]);
        assert!(ran.stderr.contains("chmod 600"), "{}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn mints_at_once_make_one_pair() {
    for _ in 0..5 {
        let place = Place::new();
        let children: Vec<Child> = (0..8).map(|_| place.spawn(&[])).collect();
        let mut tokens = Vec::new();
        for child in children {
            let ran: Ran = child.wait_with_output().expect("it ends").into();
            assert_eq!(ran.code, 0, "{ran:?}");
            tokens.push(ran.stdout.trim().to_owned());
        }
        for token in tokens {
            place.verify(&token).expect("one pair verifies them all");
        }
        let mut files: Vec<_> = fs::read_dir(place.path(""))
            .expect("the folder")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        files.sort();
        assert_eq!(files, ["jwt.pem", "jwt.pub.pem"]);
    }
}

#[test]
fn a_lost_public_half_is_written_again() {
    let place = Place::new();
    let token = place.mint(0, &[]).stdout;
    fs::remove_file(place.path("jwt.pub.pem")).expect("remove");
    place.mint(0, &[]);
    place.verify(token.trim()).expect("the same pair");
}

#[test]
fn halves_that_do_not_match_are_refused() {
    let (place, other) = (Place::new(), Place::new());
    place.mint(0, &[]);
    other.mint(0, &[]);
    fs::copy(other.path("jwt.pub.pem"), place.path("jwt.pub.pem")).expect("copy");
    let ran = place.mint(1, &[]);
    assert!(ran.stderr.contains("not the public half"), "{}", ran.stderr);
    fs::remove_file(place.path("jwt.pem")).expect("remove");
    let ran = place.mint(1, &[]);
    assert!(
        ran.stderr.contains("without its private half"),
        "{}",
        ran.stderr
    );
    assert!(!place.path("jwt.pem").exists());
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
}

#[test]
fn nonsense_is_refused_all_at_once() {
    let args = [
        "token", "mint", "--user", "0", "--role", "boss", "--ttl", "31d",
    ];
    let ran = expect_code(64, &args, &[("JWT_ISSUER", "")]);
    for part in ["--user", "--role", "--ttl", "JWT_ISSUER"] {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    assert_eq!(ran.stdout, "");
}
