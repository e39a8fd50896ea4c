//! `token keygen`: two keys valid at once, and none that is overwritten.

use std::fs;

use super::{Place, mode};

#[test]
fn a_new_key_verifies_beside_the_old_one() {
    for format in ["jwt", "biscuit"] {
        let place = Place::new();
        let old = place.mint(0, &["--format", format]).stdout;
        let file = place.path(&format!("{format}-2.pem"));
        let file = file.to_str().expect("UTF-8");
        let args = [
            "keygen",
            "--format",
            format,
            "--private-key-file",
            file,
            "--json",
        ];
        let made = place.token(0, &args, None).json();
        let kid = made["kid"].as_str().expect("a kid");
        assert_eq!(mode(file.as_ref()), 0o600);
        let variable = format!("--{format}-private-key-file");
        let new = place.mint(0, &["--format", format, &variable, file]).stdout;
        let (old, new) = (old.trim(), new.trim());
        assert_eq!(place.verify(new).expect("the new one").kid(), kid);
        let old_kid = place.verify(old).expect("the old one").kid().to_owned();
        place.token(0, &["retire", "--kid", &old_kid], None);
        let ran = place.token(1, &["retire", "--kid", &old_kid], None);
        assert!(ran.stderr.contains("holds no key"), "{}", ran.stderr);
        assert_eq!(place.verify(new).expect("still").kid(), kid);
        let refused = place.verify(old).expect_err("retired");
        assert_eq!(refused.code(), "unknown_key");
    }
}

#[test]
fn a_key_vouches_for_its_roles_only() {
    let place = Place::new();
    let args = ["keygen", "--format", "jwt", "--roles", "customer,auditor"];
    place.token(0, &args, None);
    let key = &place.set()["keys"][0];
    assert_eq!(key["roles"], serde_json::json!(["customer", "auditor"]));
    place.token(64, &["keygen", "--format", "jwt", "--roles", "boss"], None);
}

#[test]
fn a_key_is_never_overwritten_and_a_bad_set_is_not_made_longer() {
    let place = Place::new();
    place.token(0, &["keygen", "--format", "biscuit"], None);
    let before = fs::read(place.path("biscuit.pem")).expect("the key");
    let ran = place.token(1, &["keygen", "--format", "biscuit"], None);
    assert!(ran.stderr.contains("never overwritten"), "{}", ran.stderr);
    assert_eq!(
        fs::read(place.path("biscuit.pem")).expect("the key"),
        before
    );
    assert_eq!(place.keys().len(), 1);
    fs::write(place.path("keys.json"), r#"{"keys": [{"kty": "none"}]}"#).expect("write");
    let ran = place.token(1, &["keygen", "--format", "jwt"], None);
    assert!(ran.stderr.contains("key 1: "), "{}", ran.stderr);
    assert!(!place.path("jwt.pem").exists());
}
