//! `token inspect` and `token attenuate`.

use serde_json::json;
use shared::auth::{AuthArgs, Denied, Operation, Policy, Request};
use shared::domain::ids::{CustomerId, ReturnId};

use super::KeyFolder;

impl KeyFolder {
    /// The policy's decision about the customer's request for one of their own returns.
    fn asks(&self, token: &str, operation: Operation, id: i64) -> Result<(), Denied> {
        let policy = Policy::new(&AuthArgs {
            auth_keys_file: self.path("keys.json"),
            auth_issuer: "returns-dev".to_owned(),
            auth_audience: "returns-api".to_owned(),
            auth_leeway_secs: 0,
            auth_token_max_bytes: 4096,
        });
        let request = Request::about(operation, ReturnId(id), Some(CustomerId(42)));
        let verified = self.verify(token.trim()).expect("verifies");
        policy.decide(&verified, &request).map(|_| ())
    }

    fn biscuit(&self) -> String {
        self.mint(0, &["--format", "biscuit"]).stdout
    }
}

#[test]
fn a_narrowed_token_can_do_less() {
    use Operation::{ReturnsCreate, ReturnsRead};
    let folder = KeyFolder::new();
    let whole = folder.biscuit();
    for (operation, id) in [(ReturnsCreate, 0), (ReturnsRead, 456), (ReturnsRead, 457)] {
        assert_eq!(folder.asks(&whole, operation, id), Ok(()));
    }
    let forbidden = Err(Denied::Forbidden);
    for (args, creates, reads, reads_other) in [
        (&["--read-only"][..], forbidden.clone(), Ok(()), Ok(())),
        (
            &["--return", "456"],
            forbidden.clone(),
            Ok(()),
            forbidden.clone(),
        ),
        (&["--ttl", "1h"], Ok(()), Ok(()), Ok(())),
        (
            &["--return", "456", "--read-only", "--ttl", "1h"],
            forbidden.clone(),
            Ok(()),
            forbidden.clone(),
        ),
    ] {
        let narrowed = folder.token(0, &[&["attenuate"], args].concat(), Some(&whole));
        let narrowed = narrowed.stdout;
        assert_eq!(
            folder.asks(&narrowed, ReturnsCreate, 0),
            creates,
            "{args:?}"
        );
        assert_eq!(folder.asks(&narrowed, ReturnsRead, 456), reads, "{args:?}");
        assert_eq!(
            folder.asks(&narrowed, ReturnsRead, 457),
            reads_other,
            "{args:?}"
        );
        // Sealed: nothing can be added.
        let ran = folder.token(1, &["attenuate", "--read-only"], Some(&narrowed));
        assert!(ran.stderr.contains("a sealed one cannot"), "{}", ran.stderr);
    }
    let jwt = folder.mint(0, &[]).stdout;
    let ran = folder.token(1, &["attenuate", "--read-only"], Some(&jwt));
    assert!(
        ran.stderr.contains("a JWT cannot be narrowed"),
        "{}",
        ran.stderr
    );
    folder.token(64, &["attenuate"], Some(&whole));
}

#[test]
fn inspect_shows_the_contents_of_a_token_without_its_signature() {
    let folder = KeyFolder::new();
    let whole = folder.biscuit();
    let narrowed = folder
        .token(0, &["attenuate", "--return", "456"], Some(&whole))
        .stdout;
    let shown = folder.token(0, &["inspect"], Some(&narrowed));
    let text = shown.json();
    assert_eq!(
        (&text["format"], &text["honored"]),
        (&json!("biscuit"), &json!(true))
    );
    let blocks = text["blocks"].as_array().expect("blocks");
    assert!(
        blocks[0]
            .as_str()
            .is_some_and(|source| source.contains("user(42)"))
    );
    assert!(
        blocks[1]
            .as_str()
            .is_some_and(|source| source.contains("456"))
    );
    let verified = folder.verify(narrowed.trim()).expect("verifies");
    assert_eq!(text["revocation_ids"][1], verified.revocation_id());

    let jwt = folder.mint(0, &[]).stdout;
    let (header, signature) = jwt.trim().rsplit_once('.').expect("three parts");
    let shown = folder.token(0, &["inspect"], Some(&jwt));
    let text = shown.json();
    assert_eq!(text["claims"]["user_id"], 42);
    assert_eq!(text["token_id"], text["claims"]["jti"]);
    for secret in [signature, header, narrowed.trim()] {
        assert!(!format!("{shown:?}").contains(secret), "P13: {secret}");
    }
    // A token of other keys is shown, and reported as not honored.
    let text = KeyFolder::new().token(1, &["inspect"], Some(&jwt)).json();
    assert_eq!(
        (&text["honored"], &text["claims"]["user_id"]),
        (&json!(false), &json!(42))
    );
    for nonsense in ["", "x", "a.b.c", &"x".repeat(5000)] {
        let ran = folder.token(1, &["inspect"], Some(nonsense));
        assert_eq!(ran.stdout, "", "{nonsense}");
    }
}
