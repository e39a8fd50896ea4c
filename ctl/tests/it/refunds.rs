//! `refunds`: refunds that wait for a person, and the decisions: retry, and mark as paid or as not paid by two persons.
//!
//! The consumer's half of a retry is tested beside the consumer.

mod fixture;
mod lost;
mod mark_not_paid;
mod mark_paid;
mod park;
mod reads;
mod retry;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::get_current_timestamp;
use serde_json::json;
use sha2::{Digest, Sha256};
use shared::auth::TOKEN_MAX;
use shared::domain::ids::ReturnId;
use sqlx::{AssertSqlSafe, Executor};

pub(crate) use self::fixture::Fixture;
use self::fixture::{ADA, BOB, ended};
use crate::harness::{await_lock_waiter, expect_code, lists};

/// Every deciding command, complete but for the token.
fn decisions(id: &str) -> [Vec<&str>; 6] {
    [
        vec!["retry", id, "--attempt", "1", "--reason", "x"],
        vec!["request-mark-paid", id, "--attempt", "1", "--evidence", "x"],
        vec!["confirm-mark-paid", id, "--request", "1"],
        vec![
            "request-mark-not-paid",
            id,
            "--attempt",
            "1",
            "--evidence",
            "x",
        ],
        vec!["confirm-mark-not-paid", id, "--request", "1"],
        vec!["park", id, "--attempt", "1", "--reason", "x"],
    ]
}

#[tokio::test]
async fn only_a_valid_token_of_an_admin_may_decide() {
    let fixture = Fixture::new().await;
    let id = fixture.parked(1).await;
    let before = fixture.everything(id).await;
    let name = id.to_string();
    // Minting this token makes the keys.
    let customer = fixture.token("42", "customer");
    let now = get_current_timestamp();
    let refused = [
        (1, customer, "role admin"),
        (1, fixture.token(ADA, "auditor"), "role admin"),
        (
            1,
            fixture.signed(&json!({"user_id": 7, "exp": now - 31})),
            "exp is in the past",
        ),
        (1, "a.b.c".to_owned(), "the token is refused"),
        (1, "x".repeat(TOKEN_MAX + 1), "longer than"),
        (1, fixture.narrowed(ADA), "unnarrowed"),
    ];
    for args in decisions(&name) {
        for (code, token, text) in &refused {
            let ran = fixture.act_with(*code, token, &args);
            assert!(ran.stderr.contains(text), "{text}: {}", ran.stderr);
        }
        let none = fixture.query(64, &args);
        assert!(none.stderr.contains("OPERATOR_TOKEN"), "{}", none.stderr);
        let blank = [("DATABASE_URL", fixture.db.url()), ("OPERATOR_TOKEN", " ")];
        let ran = expect_code(64, &[&["refunds"], &args[..]].concat(), &blank);
        assert!(ran.stderr.contains("is empty"), "{}", ran.stderr);
    }
    assert_eq!(fixture.everything(id).await, before);
}

/// A person who could choose the key could sign their own token.
#[tokio::test]
async fn the_key_that_verifies_an_admin_has_no_default_and_is_recorded() {
    let fixture = Fixture::new().await;
    let id = fixture.failed(1).await;
    let token = fixture.token(ADA, "admin");
    let name = id.to_string();
    let args = ["refunds", "retry", &name, "--attempt", "1", "--reason", "x"];
    let mut variables = vec![
        ("DATABASE_URL", fixture.db.url()),
        ("OPERATOR_TOKEN", &token),
    ];
    // The key set has no default path, even if a file is there.
    let none = expect_code(64, &args, &variables);
    assert!(
        none.stderr.contains("that the api verifies tokens with"),
        "{}",
        none.stderr
    );
    variables.push(("AUTH_KEYS_FILE", "/no/such/key"));
    let away = expect_code(1, &args, &variables);
    assert!(away.stderr.contains("/no/such/key"), "{}", away.stderr);
    for ran in [none, away] {
        assert!(!ran.stderr.contains("token mint"), "{}", ran.stderr);
    }

    fixture.act_with(0, &token, &args[1..]);
    let jwk = fixture.jwk();
    // RFC 7638: the required members in this order, and nothing else.
    let hashed = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":{}}}"#, jwk["x"]);
    let thumbprint = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(hashed));
    let claims = jsonwebtoken::dangerous::insecure_decode::<serde_json::Value>(&token);
    let jti = claims.expect("our own token").claims["jti"].clone();
    assert!(jti.is_string(), "{jti}");
    let proof = json!({
        "kid": jwk["kid"],
        "key_thumbprint": thumbprint,
        "iss": "returns-dev",
        "token_id": jti,
        "revocation_id": shared::auth::jwt_revocation_id(&token),
    });
    let record = &fixture.records().await[0];
    assert_eq!(record.details()["token"], proof);
    let account: String = sqlx::query_scalar("SELECT USER()")
        .fetch_one(&fixture.db.pool)
        .await
        .expect("an account");
    assert_eq!(record.db_account.as_deref(), Some(account.as_str()));
    // A token without an id.
    let exp = get_current_timestamp() + 60;
    let bare = fixture.signed(&json!({"user_id": 7, "exp": exp}));
    let parked = fixture.parked(2).await.to_string();
    let args = [
        "request-mark-paid",
        &parked,
        "--attempt",
        "1",
        "--evidence",
        "x",
    ];
    fixture.act_with(0, &bare, &args);
    let token = &fixture.records().await[1].details()["token"];
    assert_eq!(
        (token.get("token_id"), &token["iss"]),
        (None, &json!("returns-dev"))
    );
}

/// A person may use either format, and neither after the token is revoked.
#[tokio::test]
async fn a_biscuit_of_an_admin_decides_until_it_is_revoked() {
    let fixture = Fixture::new().await;
    let (first, second) = (fixture.failed(1).await, fixture.failed(2).await);
    let token = fixture.token_of("biscuit", ADA, "admin");
    let retry = |code, id: ReturnId| {
        let id = id.to_string();
        let args = ["retry", &id, "--attempt", "1", "--reason", "x"];
        fixture.act_with(code, &token, &args)
    };
    retry(0, first);
    let proof = &fixture.records().await[0].details()["token"];
    let id = proof["token_id"].as_str().expect("an id").to_owned();
    let revoke = [
        "token",
        "revoke",
        "--token-id",
        &id,
        "--by",
        "j.doe",
        "--reason",
        "lost",
    ];
    expect_code(0, &revoke, &[("DATABASE_URL", fixture.db.url())]);
    let before = fixture.everything(second).await;
    let ran = retry(1, second);
    assert!(ran.stderr.contains("is revoked"), "{}", ran.stderr);
    assert_eq!(fixture.everything(second).await, before);
}

/// All or nothing: the last statement of the transaction fails, after the row of operator_actions was inserted.
#[tokio::test]
async fn p7_a_decision_whose_change_cannot_be_written_leaves_nothing() {
    let fixture = Fixture::new().await;
    let failed = fixture.failed(1).await;
    let parked = fixture.parked(2).await;
    let wanted = fixture.parked(3).await;
    let request = fixture.request(0, ADA, wanted).json()["request"].to_string();
    let unpaid = fixture.request_not_paid(parked).await;
    sqlx::raw_sql(
        "CREATE TRIGGER full BEFORE INSERT ON outbox FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'full'",
    )
    .execute(&fixture.db.pool)
    .await
    .expect("a trigger");
    let (a, b, c) = (failed.to_string(), parked.to_string(), wanted.to_string());
    for (id, args) in [
        (failed, vec!["retry", &a, "--attempt", "1", "--reason", "x"]),
        (
            parked,
            vec!["confirm-mark-not-paid", &b, "--request", &unpaid],
        ),
        (wanted, vec!["confirm-mark-paid", &c, "--request", &request]),
    ] {
        let before = fixture.everything(id).await;
        let ran = fixture.act(1, BOB, &args);
        assert!(ran.stderr.contains("full"), "{}", ran.stderr);
        assert_eq!(fixture.everything(id).await, before, "{args:?}");
    }
    assert_eq!(fixture.refunded_amount(3).await, "0");
}

/// Retry and confirm-mark-not-paid lock in the consumer's order: a decision that locked the attempts first could deadlock with it.
#[tokio::test]
async fn p5_a_decision_that_waits_for_the_return_holds_no_other_lock() {
    let fixture = Fixture::new().await;
    let (failed, parked) = (fixture.failed(1).await, fixture.parked(2).await);
    let (a, b) = (failed.to_string(), parked.to_string());
    let unpaid = fixture.request_not_paid(parked).await;
    for args in [
        &["retry", &a, "--attempt", "1", "--reason", "x"][..],
        &["confirm-mark-not-paid", &b, "--request", &unpaid],
    ] {
        let mut settlement = fixture.db.pool.begin().await.expect("begin");
        settlement
            .execute("SELECT 1 FROM returns FOR UPDATE")
            .await
            .expect("lock");
        let decision = fixture.spawn(BOB, args);
        await_lock_waiter(&fixture.db).await;
        for held in ["refunds", "orders"] {
            let sql = AssertSqlSafe(format!("SELECT 1 FROM {held} FOR UPDATE NOWAIT"));
            let free = settlement.execute(sql).await;
            free.unwrap_or_else(|error| panic!("{args:?} holds {held}: {error}"));
        }
        settlement.rollback().await.expect("rollback");
        let ran = ended(decision);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    fixture.audited(failed).await;
    fixture.audited(parked).await;
}

#[tokio::test]
async fn admins_cannot_decide_about_their_own_returns() {
    let fixture = Fixture::new().await;
    let parked = fixture.parked(1).await;
    let failed = fixture.failed(2).await;
    fixture.request(0, ADA, parked);
    let before = (
        fixture.everything(parked).await,
        fixture.everything(failed).await,
    );
    for id in [parked, failed] {
        for args in decisions(&id.to_string()) {
            let ran = fixture.act(1, "42", &args);
            assert!(ran.stderr.contains("is your own"), "{}", ran.stderr);
        }
    }
    let after = (
        fixture.everything(parked).await,
        fixture.everything(failed).await,
    );
    assert_eq!(after, before);
    // Nor about one that they filed for a customer.
    fixture.execute("UPDATE returns SET filed_by = ?", 9).await;
    for args in decisions(&failed.to_string()) {
        let ran = fixture.act(1, "9", &args);
        assert!(ran.stderr.contains("was filed by you"), "{}", ran.stderr);
    }
}

#[tokio::test]
async fn the_token_may_come_from_a_file() {
    let fixture = Fixture::new().await;
    let id = fixture.failed(1).await.to_string();
    let file = fixture.key("token");
    std::fs::write(&file, format!("{}\n", fixture.token(ADA, "admin"))).expect("write");
    let file = file.display().to_string();
    // The file has priority over the variable.
    let retry = ["retry", &id, "--attempt", "1", "--reason", "x"];
    let args = [&retry[..], &["--token-file", &file]].concat();
    fixture.act_with(0, "a.b.c", &args);
    let args = [&retry[..], &["--token-file", "/no/such"]].concat();
    let ran = fixture.act(1, ADA, &args);
    assert!(ran.stderr.contains("/no/such"), "{}", ran.stderr);
}

#[test]
fn each_command_explains_itself() {
    let listed = expect_code(0, &["refunds", "--help"], &[]).stdout;
    for command in [
        "list",
        "show",
        "retry",
        "request-mark-paid",
        "confirm-mark-paid",
        "request-mark-not-paid",
        "confirm-mark-not-paid",
    ] {
        let help = expect_code(0, &["refunds", command, "--help"], &[]).stdout;
        assert!(help.contains("--json"), "{command}: {help}");
        assert!(lists(&listed, command), "{listed}");
        let decides = !["list", "show"].contains(&command);
        for part in ["OPERATOR_TOKEN", "--token-file", "WHAT THIS MEANS"] {
            assert_eq!(help.contains(part), decides, "{command} {part}: {help}");
        }
    }
}

#[tokio::test]
async fn malformed_and_unknown_returns_are_different_errors() {
    let fixture = Fixture::new().await;
    fixture.token(ADA, "admin");
    for bad in ["x", "0", "-5", "1.5", "9223372036854775808", ""] {
        fixture.query(64, &["show", bad]);
        let attempt = ["retry", "1", "--reason", "x", "--attempt", bad];
        fixture.act(64, ADA, &attempt);
        fixture.act(64, ADA, &["confirm-mark-paid", "1", "--request", bad]);
        for args in decisions(bad) {
            fixture.act(64, ADA, &args);
        }
    }
    fixture.query(64, &["list", "--after", "x"]);
    fixture.query(64, &["list", "--state", "paid"]);
    let unknown = fixture.query(1, &["show", "999"]);
    assert!(
        unknown.stderr.contains("no return 999"),
        "{}",
        unknown.stderr
    );
    for args in decisions("999") {
        let ran = fixture.act(1, ADA, &args);
        assert!(ran.stderr.contains("no return 999"), "{}", ran.stderr);
    }
}
