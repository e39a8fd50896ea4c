//! `token inspect` and `token attenuate`.

use serde_json::json;
use shared::auth::{AuthArgs, Denied, Operation, Policy, Request};
use shared::domain::ids::{CustomerId, ReturnId};

use super::Place;

impl Place {
    /// What the policy says to the customer's request about one of their own returns.
    fn asks(&self, token: &str, operation: Operation, id: i64) -> Result<(), Denied> {
        let policy = Policy::new(&AuthArgs {
            auth_keys_file: self.path("keys.json"),
            auth_issuer: "returns-dev".to_owned(),
            auth_audience: "returns-api".to_owned(),
            auth_leeway_secs: 0,
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
fn a_narrowed_token_does_what_is_left_and_no_more() {
    use Operation::{ReturnsCreate, ReturnsRead};
    let place = Place::new();
    let whole = place.biscuit();
    for (operation, id) in [(ReturnsCreate, 0), (ReturnsRead, 456), (ReturnsRead, 457)] {
        assert_eq!(place.asks(&whole, operation, id), Ok(()));
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
        let narrowed = place.token(0, &[&["attenuate"], args].concat(), Some(&whole));
        let narrowed = narrowed.stdout;
        assert_eq!(place.asks(&narrowed, ReturnsCreate, 0), creates, "{args:?}");
        assert_eq!(place.asks(&narrowed, ReturnsRead, 456), reads, "{args:?}");
        assert_eq!(
            place.asks(&narrowed, ReturnsRead, 457),
            reads_other,
            "{args:?}"
        );
        // Sealed: nobody adds to it.
        let ran = place.token(1, &["attenuate", "--read-only"], Some(&narrowed));
        assert!(ran.stderr.contains("a sealed one cannot"), "{}", ran.stderr);
    }
    let jwt = place.mint(0, &[]).stdout;
    let ran = place.token(1, &["attenuate", "--read-only"], Some(&jwt));
    assert!(
        ran.stderr.contains("a JWT cannot be narrowed"),
        "{}",
        ran.stderr
    );
    place.token(64, &["attenuate"], Some(&whole));
}

#[test]
fn inspect_tells_what_a_token_says_and_nothing_that_lets_anyone_in() {
    let place = Place::new();
    let whole = place.biscuit();
    let narrowed = place
        .token(0, &["attenuate", "--return", "456"], Some(&whole))
        .stdout;
    let shown = place.token(0, &["inspect"], Some(&narrowed));
    let told = shown.json();
    assert_eq!(
        (&told["format"], &told["honored"]),
        (&json!("biscuit"), &json!(true))
    );
    let blocks = told["blocks"].as_array().expect("blocks");
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
    let verified = place.verify(narrowed.trim()).expect("verifies");
    assert_eq!(told["revocation_ids"][1], verified.revocation_id());

    let jwt = place.mint(0, &[]).stdout;
    let (header, signature) = jwt.trim().rsplit_once('.').expect("three parts");
    let shown = place.token(0, &["inspect"], Some(&jwt));
    let told = shown.json();
    assert_eq!(told["claims"]["user_id"], 42);
    assert_eq!(told["token_id"], told["claims"]["jti"]);
    for secret in [signature, header, narrowed.trim()] {
        assert!(!format!("{shown:?}").contains(secret), "P13: {secret}");
    }
    // Of another's: shown, and said that it is.
    let told = Place::new().token(1, &["inspect"], Some(&jwt)).json();
    assert_eq!(
        (&told["honored"], &told["claims"]["user_id"]),
        (&json!(false), &json!(42))
    );
    for nonsense in ["", "x", "a.b.c", &"x".repeat(5000)] {
        let ran = place.token(1, &["inspect"], Some(nonsense));
        assert_eq!(ran.stdout, "", "{nonsense}");
    }
}
