//! Execution plans, for tests: each table is read by an index.

use shared::domain::ids::CustomerId;
use shared::test_support::TestDb;
use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, Executor, Row};

/// Fills the tables with returns that were refunded long ago, of which a few are as given, and takes statistics.
pub(super) async fn refunded_long_ago(db: &TestDb, status: &str, state: &str) {
    db.seed_orders(1, 3_000, CustomerId(42)).await;
    for sql in [
        format!(
            "INSERT INTO returns (id, order_id, customer_id, reason, status, version, policy_version, refund_amount, \
             currency, created_at, updated_at) SELECT id, id, 42, 'x', IF(id % 500 = 0, '{status}', 'refunded'), 1, \
             'x', 1, 'EUR', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) FROM orders"
        ),
        format!(
            "INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, next_check_at, \
             created_at, updated_at) SELECT id, 1, id, 1, 'EUR', IF(id % 500 = 0, '{state}', 'succeeded'), \
             UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) FROM returns"
        ),
        "ANALYZE TABLE returns, refunds".to_owned(),
    ] {
        db.pool.execute(AssertSqlSafe(sql)).await.expect("filled");
    }
}

/// Table and key of a step that reads a stored table. It must look its rows up by that key, unless the table is among
/// those that may be `counted` whole.
pub(super) fn key_of(step: &MySqlRow, counted: &[&str]) -> Option<(String, String)> {
    let text = |name: &str| step.try_get::<Option<String>, _>(name).expect("a column");
    let table = text("table").filter(|table| !table.starts_with('<'))?;
    let (access, key) = (text("type").expect("an access type"), text("key"));
    let looked_up = ["const", "eq_ref", "ref", "range"].contains(&access.as_str());
    assert!(
        looked_up || counted.contains(&table.as_str()),
        "{table} is read by {access} {key:?}"
    );
    Some((table, key.expect("a key")))
}
