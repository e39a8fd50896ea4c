//! `refunds`: what waits for a person, and what persons may decide: retried, marked as paid by two, marked as not paid.
//!
//! The consumer's half of a retry is tested beside the consumer.

mod counter;
mod look;
mod lost;
mod mark_not_paid;
mod mark_paid;
mod retry;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::get_current_timestamp;
use serde_json::json;
use sha2::{Digest, Sha256};
use shared::domain::ids::ReturnId;
use sqlx::{AssertSqlSafe, Executor};

use self::counter::{ADA, BOB, Counter, ended};
use crate::harness::{expect_code, lists, somebody_waits_for_a_lock};

/// Every deciding command, complete but for the token.
fn decisions(id: &str) -> [Vec<&str>; 4] {
    [
        vec!["retry", id, "--attempt", "1", "--reason", "x"],
        vec!["request-mark-paid", id, "--attempt", "1", "--evidence", "x"],
        vec!["confirm-mark-paid", id, "--request", "1"],
        vec!["mark-not-paid", id, "--attempt", "1", "--evidence", "x"],
    ]
}

#[tokio::test]
async fn only_a_good_token_of_an_admin_decides() {
    let counter = Counter::open().await;
    let id = counter.parked(1).await;
    let before = counter.everything(id).await;
    let name = id.to_string();
    // It makes the keys.
    let customer = counter.token("42", "customer");
    let now = get_current_timestamp();
    let refused = [
        (1, customer, "role admin"),
        (1, counter.token(ADA, "auditor"), "role admin"),
        (
            1,
            counter.signed(&json!({"user_id": 7, "exp": now - 31})),
            "exp is past",
        ),
        (1, "a.b.c".to_owned(), "the token is refused"),
        (1, "x".repeat(5_000), "longer than"),
        (1, counter.narrowed(ADA), "unnarrowed"),
    ];
    for args in decisions(&name) {
        for (code, token, told) in &refused {
            let ran = counter.act_with(*code, token, &args);
            assert!(ran.stderr.contains(told), "{told}: {}", ran.stderr);
        }
        let none = counter.look(64, &args);
        assert!(none.stderr.contains("OPERATOR_TOKEN"), "{}", none.stderr);
        let blank = [("DATABASE_URL", counter.db.url()), ("OPERATOR_TOKEN", " ")];
        let ran = expect_code(64, &[&["refunds"], &args[..]].concat(), &blank);
        assert!(ran.stderr.contains("is empty"), "{}", ran.stderr);
    }
    assert_eq!(counter.everything(id).await, before);
}

/// Whoever could choose the key could sign their own token.
#[tokio::test]
async fn the_key_that_decides_who_decides_is_told_and_recorded() {
    let counter = Counter::open().await;
    let id = counter.failed(1).await;
    let token = counter.token(ADA, "admin");
    let name = id.to_string();
    let args = ["refunds", "retry", &name, "--attempt", "1", "--reason", "x"];
    let mut variables = vec![
        ("DATABASE_URL", counter.db.url()),
        ("OPERATOR_TOKEN", &token),
    ];
    // No default, also where one lies.
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

    counter.act_with(0, &token, &args[1..]);
    let jwk = counter.jwk();
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
    let record = &counter.records().await[0];
    assert_eq!(record.details()["token"], proof);
    let account: String = sqlx::query_scalar("SELECT USER()")
        .fetch_one(&counter.db.pool)
        .await
        .expect("an account");
    assert_eq!(record.db_account.as_deref(), Some(account.as_str()));
    // A token without a number of its own.
    let exp = get_current_timestamp() + 60;
    let bare = counter.signed(&json!({"user_id": 7, "exp": exp}));
    let parked = counter.parked(2).await.to_string();
    let args = [
        "request-mark-paid",
        &parked,
        "--attempt",
        "1",
        "--evidence",
        "x",
    ];
    counter.act_with(0, &bare, &args);
    let token = &counter.records().await[1].details()["token"];
    assert_eq!(
        (token.get("token_id"), &token["iss"]),
        (None, &json!("returns-dev"))
    );
}

/// The same person in either format, and in none once the token is taken back.
#[tokio::test]
async fn a_biscuit_of_an_admin_decides_until_it_is_revoked() {
    let counter = Counter::open().await;
    let (first, second) = (counter.failed(1).await, counter.failed(2).await);
    let token = counter.token_of("biscuit", ADA, "admin");
    let retry = |code, id: ReturnId| {
        let id = id.to_string();
        let args = ["retry", &id, "--attempt", "1", "--reason", "x"];
        counter.act_with(code, &token, &args)
    };
    retry(0, first);
    let proof = &counter.records().await[0].details()["token"];
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
    expect_code(0, &revoke, &[("DATABASE_URL", counter.db.url())]);
    let before = counter.everything(second).await;
    let ran = retry(1, second);
    assert!(ran.stderr.contains("is revoked"), "{}", ran.stderr);
    assert_eq!(counter.everything(second).await, before);
}

/// All or nothing: the last statement of the transaction fails, after the row of operator_actions was inserted.
#[tokio::test]
async fn p7_a_decision_whose_change_cannot_be_written_leaves_nothing() {
    let counter = Counter::open().await;
    let failed = counter.failed(1).await;
    let parked = counter.parked(2).await;
    let wanted = counter.parked(3).await;
    let request = counter.request(0, ADA, wanted).json()["request"].to_string();
    sqlx::raw_sql(
        "CREATE TRIGGER full BEFORE INSERT ON outbox FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'full'",
    )
    .execute(&counter.db.pool)
    .await
    .expect("a trigger");
    let evidence = ["--attempt", "1", "--evidence", "x"];
    let (a, b, c) = (failed.to_string(), parked.to_string(), wanted.to_string());
    for (id, args) in [
        (failed, vec!["retry", &a, "--attempt", "1", "--reason", "x"]),
        (parked, [&["mark-not-paid", &b][..], &evidence].concat()),
        (wanted, vec!["confirm-mark-paid", &c, "--request", &request]),
    ] {
        let before = counter.everything(id).await;
        let ran = counter.act(1, BOB, &args);
        assert!(ran.stderr.contains("full"), "{}", ran.stderr);
        assert_eq!(counter.everything(id).await, before, "{args:?}");
    }
    assert_eq!(counter.refunded_amount(3).await, "0");
}

/// Retry and mark-not-paid lock as the consumer does: whoever took the attempts first would deadlock with it.
#[tokio::test]
async fn p5_whoever_waits_for_the_return_holds_nothing_else() {
    let counter = Counter::open().await;
    let (failed, parked) = (counter.failed(1).await, counter.parked(2).await);
    let (a, b) = (failed.to_string(), parked.to_string());
    for args in [
        ["retry", &a, "--attempt", "1", "--reason", "x"],
        ["mark-not-paid", &b, "--attempt", "1", "--evidence", "x"],
    ] {
        let mut settlement = counter.db.pool.begin().await.expect("begin");
        settlement
            .execute("SELECT 1 FROM returns FOR UPDATE")
            .await
            .expect("lock");
        let decision = counter.spawn(ADA, &args);
        somebody_waits_for_a_lock(&counter.db).await;
        for held in ["refunds", "orders"] {
            let sql = AssertSqlSafe(format!("SELECT 1 FROM {held} FOR UPDATE NOWAIT"));
            let free = settlement.execute(sql).await;
            free.unwrap_or_else(|error| panic!("{args:?} holds {held}: {error}"));
        }
        settlement.rollback().await.expect("rollback");
        let ran = ended(decision);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    counter.audited(failed).await;
    counter.audited(parked).await;
}

#[tokio::test]
async fn nobody_decides_about_their_own_return() {
    let counter = Counter::open().await;
    let parked = counter.parked(1).await;
    let failed = counter.failed(2).await;
    counter.request(0, ADA, parked);
    let before = (
        counter.everything(parked).await,
        counter.everything(failed).await,
    );
    for id in [parked, failed] {
        for args in decisions(&id.to_string()) {
            let ran = counter.act(1, "42", &args);
            assert!(ran.stderr.contains("is your own"), "{}", ran.stderr);
        }
    }
    let after = (
        counter.everything(parked).await,
        counter.everything(failed).await,
    );
    assert_eq!(after, before);
}

#[tokio::test]
async fn the_token_may_come_from_a_file() {
    let counter = Counter::open().await;
    let id = counter.failed(1).await.to_string();
    let file = counter.key("token");
    std::fs::write(&file, format!("{}\n", counter.token(ADA, "admin"))).expect("write");
    let file = file.display().to_string();
    // Before the variable.
    let retry = ["retry", &id, "--attempt", "1", "--reason", "x"];
    let args = [&retry[..], &["--token-file", &file]].concat();
    counter.act_with(0, "a.b.c", &args);
    let args = [&retry[..], &["--token-file", "/no/such"]].concat();
    let ran = counter.act(1, ADA, &args);
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
        "mark-not-paid",
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
async fn malformed_and_unknown_returns_are_told_apart() {
    let counter = Counter::open().await;
    counter.token(ADA, "admin");
    for bad in ["x", "0", "-5", "1.5", "9223372036854775808", ""] {
        counter.look(64, &["show", bad]);
        let attempt = ["retry", "1", "--reason", "x", "--attempt", bad];
        counter.act(64, ADA, &attempt);
        counter.act(64, ADA, &["confirm-mark-paid", "1", "--request", bad]);
        for args in decisions(bad) {
            counter.act(64, ADA, &args);
        }
    }
    counter.look(64, &["list", "--after", "x"]);
    counter.look(64, &["list", "--state", "paid"]);
    let unknown = counter.look(1, &["show", "999"]);
    assert!(
        unknown.stderr.contains("no return 999"),
        "{}",
        unknown.stderr
    );
    for args in decisions("999") {
        let ran = counter.act(1, ADA, &args);
        assert!(ran.stderr.contains("no return 999"), "{}", ran.stderr);
    }
}
