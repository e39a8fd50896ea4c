//! Writes returns directly into the tables: two years at even intervals, without events.

use anyhow::Context;
use rand::RngExt;
use shared::test_support::TestDb;
use sqlx::AssertSqlSafe;

/// The customer of every tenth return, like the account of a shop for its own orders.
pub(crate) const CUSTOMER: i64 = 1;

/// 2024-11-01T00:00:00Z in microseconds.
const BEGIN: i64 = 1_730_419_200_000_000;
const TWO_YEARS: i64 = 730 * 86_400 * 1_000_000;

/// The place of a return in the order of the list.
pub(crate) struct Place {
    micros: i64,
    id: i64,
}

impl Place {
    /// Near this share of the returns, counted from the oldest.
    pub(crate) fn about(returns: i64, share: f64) -> Self {
        let at = rand::rng().random_range(share * 0.9..=share);
        let id = of_share(returns, at);
        Self {
            micros: BEGIN + id * (TWO_YEARS / returns),
            id,
        }
    }

    pub(crate) fn cursor(&self) -> String {
        format!("{}-{}", self.micros, self.id)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a place near enough"
)]
fn of_share(returns: i64, share: f64) -> i64 {
    (returns as f64 * share) as i64 + 1
}

/// The numbers from 1 to a thousand as a derived table.
const THOUSAND: &str = "(WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1000) SELECT n FROM n)";

/// Ids 1 to `returns`, rounded up to whole thousands, each with an order of the same number.
pub(crate) async fn fill(db: &TestDb, returns: i64) -> anyhow::Result<()> {
    let step = TWO_YEARS / returns;
    for thousand in 0..(returns + 999) / 1000 {
        let id = format!("({thousand} * 1000 + seq.n)");
        let customer = format!("IF({id} % 10 = 0, {CUSTOMER}, 2 + {id} % 50000)");
        let at = format!("FROM_UNIXTIME(0) + INTERVAL ({BEGIN} + {id} * {step}) MICROSECOND");
        let orders = format!(
            "INSERT INTO orders (id, customer_id, total, currency, status, delivered_at) \
             SELECT {id}, {customer}, 49.90, 'EUR', 'delivered', {at} FROM {THOUSAND} AS seq"
        );
        // Most are refunded; one in a hundred failed, one in fifty is pending.
        let status = format!(
            "CASE WHEN {id} % 100 = 1 THEN 'refund_failed' WHEN {id} % 50 = 2 THEN 'initiated' \
             WHEN {id} % 20 = 3 THEN 'cancelled' ELSE 'refunded' END"
        );
        let filed = format!(
            "INSERT INTO returns (id, order_id, customer_id, reason, status, version, policy_version, refund_amount, \
             currency, created_at, updated_at) SELECT {id}, {id}, {customer}, 'does not fit', {status}, 1, 'bench', \
             49.90, 'EUR', {at}, {at} FROM {THOUSAND} AS seq"
        );
        for sql in [orders, filed] {
            sqlx::query(AssertSqlSafe(sql.clone()))
                .execute(&db.pool)
                .await
                .with_context(|| sql)?;
        }
    }
    sqlx::query("ANALYZE TABLE returns")
        .fetch_all(&db.pool)
        .await?;
    Ok(())
}
