//! `migrate`: repeatable after success, in parallel, and after every kind of failure.

use shared::runtime::schema;
use shared::test_support::{TestDb, env};
use sqlx::Executor;

use crate::harness::{Ran, expect_code, returnsctl};

const OUTBOX: &str = "20261123000006_create_outbox.sql";
const LAST: &str = "20261202000032";

fn migrate(db: &TestDb, code: i32, more: &[&str]) -> Ran {
    let args = [&["migrate"], more].concat();
    expect_code(code, &args, &[("DATABASE_URL", db.url())])
}

async fn lock_is_free(db: &TestDb) -> bool {
    sqlx::query_scalar::<_, i64>(
        "SELECT IS_FREE_LOCK(CONCAT('returns.migrate.', LEFT(SHA2(DATABASE(), 256), 32)))",
    )
    .fetch_one(&db.pool)
    .await
    .expect("IS_FREE_LOCK")
        == 1
}

#[tokio::test]
async fn the_second_run_applies_nothing() {
    let db = TestDb::create_empty().await;
    let first = migrate(&db, 0, &["--json"]).json();
    assert_eq!(first["version"], schema::version());
    assert!(first["applied"].as_u64() > Some(10), "{first}");
    assert_eq!(migrate(&db, 0, &["--json"]).json()["applied"], 0);
    let text = migrate(&db, 0, &[]).stdout;
    assert!(text.contains("nothing to apply"), "{text}");
    schema::check(&db.database(1)).await.expect("usable");
}

#[tokio::test]
async fn concurrent_runs_share_the_work() {
    let db = TestDb::create_empty().await;
    let children: Vec<_> = (0..4)
        .map(|_| {
            returnsctl(&["migrate", "--json"], &[("DATABASE_URL", db.url())])
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .expect("the built program runs")
        })
        .collect();
    let mut applied = Vec::new();
    for child in children {
        let ran: Ran = child.wait_with_output().expect("it ends").into();
        assert_eq!(ran.code, 0, "{ran:?}");
        applied.push(ran.json()["applied"].as_u64().expect("a number"));
    }
    let files: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM _sqlx_migrations WHERE success")
        .fetch_one(&db.pool)
        .await
        .expect("count");
    // One of them did everything, the others waited for it.
    applied.sort_unstable();
    assert_eq!(applied, [0, 0, 0, files.unsigned_abs()]);
}

#[tokio::test]
async fn a_failure_releases_the_lock_and_the_repeat_works_after_repair() {
    let db = TestDb::create_empty().await;
    db.pool
        .execute("CREATE TABLE outbox (in_the_way INT)")
        .await
        .expect("create");
    let ran = migrate(&db, 1, &[]);
    assert!(ran.stderr.contains(OUTBOX), "{}", ran.stderr);
    assert!(ran.stderr.contains("already exists"), "{}", ran.stderr);
    assert!(lock_is_free(&db).await);

    // Not repaired: the same answer again, not a different one.
    let again = migrate(&db, 1, &[]);
    assert_eq!(again.stderr, ran.stderr);

    db.pool.execute("DROP TABLE outbox").await.expect("drop");
    let repaired = migrate(&db, 0, &["--json"]).json();
    assert_eq!(repaired["version"], schema::version());
    schema::check(&db.database(1)).await.expect("usable");
}

#[tokio::test]
async fn a_held_lock_is_reported_with_its_holder() {
    let db = TestDb::create_empty().await;
    let mut holder = db.pool.acquire().await.expect("a connection");
    let (got, id): (i64, u64) = sqlx::query_as(
        "SELECT GET_LOCK(CONCAT('returns.migrate.', LEFT(SHA2(DATABASE(), 256), 32)), 0), CONNECTION_ID()",
    )
    .fetch_one(&mut *holder)
    .await
    .expect("the lock");
    assert_eq!(got, 1);
    let ran = migrate(&db, 1, &["--lock-wait-secs", "0"]);
    assert!(
        ran.stderr.contains(&format!("connection {id}")),
        "{}",
        ran.stderr
    );
}

/// A run that died inside the last migration leaves its mark unset.
async fn cut_off_in_the_last(db: &TestDb) -> Ran {
    sqlx::query("UPDATE _sqlx_migrations SET success = FALSE WHERE version = ?")
        .bind(schema::version())
        .execute(&db.pool)
        .await
        .expect("update");
    migrate(db, 1, &[])
}

#[tokio::test]
async fn a_run_interrupted_after_its_statement_is_recorded_as_done() {
    let db = TestDb::create().await;
    let ran = cut_off_in_the_last(&db).await;
    assert!(
        ran.stderr.contains(&format!("--took-effect {LAST}")),
        "{}",
        ran.stderr
    );
    let report = migrate(&db, 0, &["--took-effect", LAST, "--json"]).json();
    assert_eq!(report["applied"], 0);
    schema::check(&db.database(1)).await.expect("usable");
}

#[tokio::test]
async fn a_run_interrupted_before_its_statement_is_repeated() {
    let db = TestDb::create().await;
    db.pool
        .execute("ALTER TABLE return_events DROP COLUMN span_id, DROP COLUMN trace_flags")
        .await
        .expect("as it was before");
    let ran = cut_off_in_the_last(&db).await;
    assert!(
        ran.stderr.contains(&format!("--had-no-effect {LAST}")),
        "{}",
        ran.stderr
    );
    let report = migrate(&db, 0, &["--had-no-effect", LAST, "--json"]).json();
    assert_eq!(report["applied"], 1);
    let again: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = DATABASE() \
         AND table_name = 'return_events' AND column_name = 'span_id'",
    )
    .fetch_one(&db.pool)
    .await
    .expect("the column");
    assert_eq!(again, 1, "the statement was run again");
}

#[tokio::test]
async fn a_migration_that_succeeded_is_not_repaired() {
    let db = TestDb::create().await;
    let ran = migrate(&db, 1, &["--had-no-effect", LAST]);
    assert!(
        ran.stderr.contains("not marked as interrupted"),
        "{}",
        ran.stderr
    );
    schema::check(&db.database(1)).await.expect("untouched");
}

#[tokio::test]
async fn a_schema_of_a_newer_build_is_left_alone() {
    let db = TestDb::create().await;
    db.pool
        .execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (30000101000001, 'from the future', TRUE, '', 0)",
        )
        .await
        .expect("insert");
    let ran = migrate(&db, 1, &[]);
    assert!(ran.stderr.contains("newer"), "{}", ran.stderr);
}

#[test]
fn a_missing_database_is_reported_with_its_create_statement() {
    let url = env("DATABASE_URL");
    let (server, _) = url.rsplit_once('/').expect("a database in the URL");
    let missing = format!("{server}/test_missing");
    let ran = expect_code(1, &["migrate"], &[("DATABASE_URL", &missing)]);
    assert!(
        ran.stderr.contains("CREATE DATABASE `test_missing`"),
        "{}",
        ran.stderr
    );
}

#[test]
fn an_unreachable_server_ends_with_2() {
    let ran = expect_code(
        2,
        &["migrate"],
        &[("DATABASE_URL", "mysql://u:s3cret@127.0.0.1:1/d")],
    );
    assert!(
        ran.stderr.contains("cannot reach MySQL at 127.0.0.1:1\n"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
}

#[test]
fn a_server_that_accepts_and_stays_silent_ends_with_2() {
    // No connection is accepted here: the kernel completes the handshake, as it does for a stopped mysqld.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let url = format!("mysql://u@{address}/d");
    let ran = expect_code(2, &["migrate"], &[("DATABASE_URL", &url)]);
    let named = format!("cannot reach MySQL at {address}\n");
    assert!(ran.stderr.contains(&named), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("no connection to MySQL within"),
        "{}",
        ran.stderr
    );
}
