//! `token keygen`: two keys valid at once, and none that is overwritten.

use std::fs;

use super::{KeyFolder, mode};

#[test]
fn a_new_key_verifies_beside_the_old_one() {
    for format in ["jwt", "biscuit"] {
        let folder = KeyFolder::new();
        let old = folder.mint(0, &["--format", format]).stdout;
        let file = folder.path(&format!("{format}-2.pem"));
        let file = file.to_str().expect("UTF-8");
        let args = [
            "keygen",
            "--format",
            format,
            "--private-key-file",
            file,
            "--json",
        ];
        let made = folder.token(0, &args, None).json();
        let kid = made["kid"].as_str().expect("a kid");
        assert_eq!(mode(file.as_ref()), 0o600);
        let variable = format!("--{format}-private-key-file");
        let new = folder
            .mint(0, &["--format", format, &variable, file])
            .stdout;
        let (old, new) = (old.trim(), new.trim());
        assert_eq!(folder.verify(new).expect("the new one").kid(), kid);
        let old_kid = folder.verify(old).expect("the old one").kid().to_owned();
        folder.token(0, &["retire", "--kid", &old_kid], None);
        let ran = folder.token(1, &["retire", "--kid", &old_kid], None);
        assert!(ran.stderr.contains("holds no key"), "{}", ran.stderr);
        assert_eq!(folder.verify(new).expect("still").kid(), kid);
        let refused = folder.verify(old).expect_err("retired");
        assert_eq!(refused.code(), "unknown_key");
    }
}

#[test]
fn a_key_signs_for_its_roles_only() {
    let folder = KeyFolder::new();
    let args = ["keygen", "--format", "jwt", "--roles", "customer,auditor"];
    folder.token(0, &args, None);
    let key = &folder.set()["keys"][0];
    assert_eq!(key["roles"], serde_json::json!(["customer", "auditor"]));
    folder.token(64, &["keygen", "--format", "jwt", "--roles", "boss"], None);
}

#[test]
fn a_key_is_never_overwritten_and_a_bad_set_is_not_extended() {
    let folder = KeyFolder::new();
    folder.token(0, &["keygen", "--format", "biscuit"], None);
    let before = fs::read(folder.path("biscuit.pem")).expect("the key");
    let ran = folder.token(1, &["keygen", "--format", "biscuit"], None);
    assert!(ran.stderr.contains("never overwritten"), "{}", ran.stderr);
    assert_eq!(
        fs::read(folder.path("biscuit.pem")).expect("the key"),
        before
    );
    assert_eq!(folder.keys().len(), 1);
    fs::write(folder.path("keys.json"), r#"{"keys": [{"kty": "none"}]}"#).expect("write");
    let ran = folder.token(1, &["keygen", "--format", "jwt"], None);
    assert!(ran.stderr.contains("key 1: "), "{}", ran.stderr);
    assert!(!folder.path("jwt.pem").exists());
}
