//! `token revoke`: one entry on the list, with the person and the reason.

use serde_json::{Value, json};
use shared::auth::RevokedTokens;
use shared::test_support::TestDb;

use super::KeyFolder;
use crate::harness::Ran;

/// A folder with keys, and a database with the list.
struct Fixture {
    folder: KeyFolder,
    db: TestDb,
}

impl Fixture {
    async fn new() -> Self {
        Self {
            folder: KeyFolder::new(),
            db: TestDb::create().await,
        }
    }

    #[track_caller]
    fn revoke(&self, code: i32, args: &[&str], token: Option<&str>) -> Ran {
        let fixed = ["--by", "j.doe", "--reason", "lost", "--json"];
        let url = ["--database-url", self.db.url()];
        let args = [&["revoke"], args, &fixed, &url].concat();
        self.folder.token(code, &args, token)
    }

    async fn is_revoked(&self, token: &str) -> bool {
        let mut conn = self.db.pool.acquire().await.expect("a connection");
        let list = RevokedTokens::read(&mut conn).await.expect("the list");
        list.contains(&self.folder.verify(token.trim()).expect("verifies"))
    }

    async fn records(&self) -> Vec<(String, String, String, Value)> {
        let rows: Vec<(String, String, String, String)> = sqlx::query_as(
            "SELECT actor_id, verb, reason, CAST(details AS CHAR) FROM operator_actions ORDER BY id",
        )
        .fetch_all(&self.db.pool)
        .await
        .expect("operator_actions");
        let read = |text: &str| serde_json::from_str(text).expect("JSON");
        rows.into_iter()
            .map(|(by, verb, reason, details)| (by, verb, reason, read(&details)))
            .collect()
    }
}

#[tokio::test]
async fn a_narrowed_copy_is_revoked_without_its_parent_and_the_whole_with_it() {
    let fixture = Fixture::new().await;
    let whole = fixture.folder.mint(0, &["--format", "biscuit"]).stdout;
    let [copy, other] = ["456", "457"].map(|id| {
        fixture
            .folder
            .token(0, &["attenuate", "--return", id], Some(&whole))
            .stdout
    });
    let text = fixture.revoke(0, &[], Some(&copy)).json();
    assert_eq!(
        (&text["kind"], &text["changed"]),
        (&json!("revocation_id"), &json!(true))
    );
    assert!(fixture.is_revoked(&copy).await);
    assert!(!fixture.is_revoked(&whole).await && !fixture.is_revoked(&other).await);
    let again = fixture.revoke(0, &[], Some(&copy)).json();
    assert_eq!(again["changed"], false);

    let text = fixture.revoke(0, &["--whole"], Some(&other)).json();
    assert_eq!(text["kind"], "token_id");
    for token in [&whole, &copy, &other] {
        assert!(fixture.is_revoked(token).await);
    }
    let records = fixture.records().await;
    assert_eq!(records.len(), 2, "once each: {records:?}");
    for (by, verb, reason, details) in &records {
        assert_eq!(
            (by.as_str(), verb.as_str(), reason.as_str()),
            ("j.doe", "token.revoke", "lost")
        );
        assert!(details["token"].is_string(), "{details}");
    }
    // The entry is deleted some time after the token has expired, not before.
    let early: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM revoked_tokens WHERE expires_at IS NULL OR expires_at < UTC_TIMESTAMP() + INTERVAL 1 HOUR",
    )
    .fetch_one(&fixture.db.pool)
    .await
    .expect("a count");
    assert_eq!(early, 0);
}

#[tokio::test]
async fn a_jwt_is_revoked_by_itself_or_by_its_id() {
    let fixture = Fixture::new().await;
    let [one, other] = [(); 2].map(|()| fixture.folder.mint(0, &[]).stdout);
    fixture.revoke(0, &[], Some(&one));
    assert!(fixture.is_revoked(&one).await && !fixture.is_revoked(&other).await);
    let id = super::claims(other.trim()).jti.to_string();
    fixture.revoke(0, &["--token-id", &id], None);
    assert!(fixture.is_revoked(&other).await);
}

/// An issuer may give several tokens one id: the list holds as long as the last of them lives.
#[tokio::test]
async fn the_longer_of_two_revocations_of_a_name_is_kept() {
    let fixture = Fixture::new().await;
    let [short, long] = ["1m", "1h"].map(|ttl| fixture.folder.mint(0, &["--ttl", ttl]).stdout);
    let id = super::claims(short.trim()).jti.to_string();
    fixture.revoke(0, &["--whole"], Some(&short));
    let end = async || -> Option<time::PrimitiveDateTime> {
        sqlx::query_scalar("SELECT expires_at FROM revoked_tokens WHERE token = ?")
            .bind(&id)
            .fetch_one(&fixture.db.pool)
            .await
            .expect("on the list")
    };
    assert!(end().await.is_some());
    assert_eq!(
        fixture.revoke(0, &["--whole"], Some(&short)).json()["changed"],
        false
    );
    assert_eq!(
        fixture.revoke(0, &["--token-id", &id], None).json()["changed"],
        true
    );
    assert_eq!(end().await, None, "for ever");
    assert_eq!(
        fixture.revoke(0, &["--whole"], Some(&short)).json()["changed"],
        false
    );
    assert_eq!(end().await, None, "and not shorter again");
    assert_eq!(fixture.records().await.len(), 2);
    assert!(fixture.is_revoked(&short).await && !fixture.is_revoked(&long).await);
}

#[tokio::test]
async fn entries_are_deleted_a_day_after_their_token_expired() {
    let fixture = Fixture::new().await;
    let token = fixture.folder.mint(0, &[]).stdout;
    for (name, hours) in [("old", 25), ("late", 23)] {
        sqlx::query(
            "INSERT INTO revoked_tokens (kind, token, revoked_at, expires_at, revoked_by, reason) \
             VALUES ('token_id', ?, UTC_TIMESTAMP(), UTC_TIMESTAMP() - INTERVAL ? HOUR, 'a', 'b')",
        )
        .bind(name)
        .bind(hours)
        .execute(&fixture.db.pool)
        .await
        .expect("insert");
    }
    fixture.revoke(0, &[], Some(&token));
    let kept: Vec<String> =
        sqlx::query_scalar("SELECT token FROM revoked_tokens WHERE kind = 'token_id'")
            .fetch_all(&fixture.db.pool)
            .await
            .expect("the list");
    assert_eq!(kept, ["late"]);
}

#[tokio::test]
async fn a_foreign_token_is_refused_and_not_repeated() {
    let fixture = Fixture::new().await;
    fixture.folder.mint(0, &[]);
    let foreign = KeyFolder::new().mint(0, &[]).stdout;
    let ran = fixture.revoke(1, &[], Some(&foreign));
    assert!(ran.stderr.contains("does not accept"), "{}", ran.stderr);
    assert!(!ran.stderr.contains(foreign.trim()));
    for args in [
        &["--revocation-id", "abc"][..],
        &["--revocation-id", &"g".repeat(64)],
        &["--token-id", "a b"],
        &["--token-id", &"x".repeat(129)],
        &["--token-id", "a", "--whole"],
        &["--token-id", "a", "--revocation-id", &"a".repeat(64)],
    ] {
        fixture.revoke(64, args, None);
    }
    assert_eq!(fixture.records().await, []);
}
