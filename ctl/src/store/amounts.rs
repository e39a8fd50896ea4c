//! Orders whose amounts no provider can be asked for, or of which too much counts as refunded, for `doctor`.

use rust_decimal::Decimal;
use shared::domain::eligibility::REFUNDED_HERE;
use shared::domain::ids::OrderId;
use shared::domain::money::{Currency, Money};
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Row};

/// The newest orders, up to which `doctor` looks: older ones are beyond every return window, and a table may hold any
/// number of them.
pub(crate) const NEWEST_ORDERS: u32 = 200_000;

/// Of the newest orders: those whose total, or what the shop has refunded of it, its currency cannot express.
#[derive(Debug, Default)]
pub(crate) struct Unpayable {
    pub(crate) orders: i64,
    /// One order of each kind of mistake, with its total.
    pub(crate) examples: Vec<(OrderId, Money)>,
}

/// One pass over the newest orders. MySQL counts them by currency and decimal places, and the currencies are looked up here.
pub(crate) async fn unpayable(conn: &mut MySqlConnection) -> sqlx::Result<Unpayable> {
    let groups = sqlx::query(
        "/* unpayable */ SELECT currency, places, COUNT(*) AS orders, MAX(id) AS newest \
         FROM (SELECT id, currency, CASE \
         WHEN total = ROUND(total, 0) AND refunded_amount = ROUND(refunded_amount, 0) THEN 0 \
         WHEN total = ROUND(total, 1) AND refunded_amount = ROUND(refunded_amount, 1) THEN 1 \
         WHEN total = ROUND(total, 2) AND refunded_amount = ROUND(refunded_amount, 2) THEN 2 \
         WHEN total = ROUND(total, 3) AND refunded_amount = ROUND(refunded_amount, 3) THEN 3 ELSE 4 END AS places \
         FROM orders ORDER BY id DESC LIMIT ?) AS newest GROUP BY currency, places ORDER BY newest DESC",
    )
    .bind(NEWEST_ORDERS)
    .fetch_all(&mut *conn)
    .await?;
    let mut unpayable = Unpayable::default();
    for group in &groups {
        let places: i64 = group.try_get("places")?;
        let digits = Currency::from_row(group)?.minor_digits();
        if digits.is_some_and(|digits| places <= i64::from(digits)) {
            continue;
        }
        unpayable.orders += group.try_get::<i64, _>("orders")?;
        let example = example(conn, group.try_get("newest")?).await?;
        unpayable.examples.extend(example);
    }
    Ok(unpayable)
}

/// An order of which more than its total counts as refunded.
#[derive(Debug)]
pub(crate) struct Overcounted {
    pub(crate) id: OrderId,
    pub(crate) total: Money,
    pub(crate) by_shop: Decimal,
    /// By its returns.
    pub(crate) here: Decimal,
}

/// Of the newest orders those where the shop's column and our returns together are more than the total: how many, and the
/// newest of them.
pub(crate) async fn overcounted(
    conn: &mut MySqlConnection,
    examples: u32,
) -> sqlx::Result<(i64, Vec<Overcounted>)> {
    let sql = format!(
        "/* overcounted */ SELECT COUNT(*) OVER () AS orders, both_counted.* FROM (SELECT o.id, o.total, o.currency, \
         o.refunded_amount, {REFUNDED_HERE} FROM (SELECT id, total, currency, refunded_amount FROM orders \
         ORDER BY id DESC LIMIT ?) AS o WHERE o.refunded_amount > 0) AS both_counted \
         WHERE refunded_here > 0 AND refunded_amount + refunded_here > total ORDER BY id DESC LIMIT ?"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(NEWEST_ORDERS)
        .bind(examples)
        .fetch_all(conn)
        .await?;
    let orders = rows.first().map(|row| row.try_get("orders")).transpose()?;
    let read = |row: &MySqlRow| {
        Ok(Overcounted {
            id: row.try_get("id")?,
            total: Money::from_row(row, "total")?,
            by_shop: row.try_get("refunded_amount")?,
            here: row.try_get("refunded_here")?,
        })
    };
    let found: sqlx::Result<Vec<Overcounted>> = rows.iter().map(read).collect();
    Ok((orders.unwrap_or(0), found?))
}

/// `None` if the shop has removed it meanwhile.
async fn example(
    conn: &mut MySqlConnection,
    id: OrderId,
) -> sqlx::Result<Option<(OrderId, Money)>> {
    let row =
        sqlx::query("/* unpayable_example */ SELECT total, currency FROM orders WHERE id = ?")
            .bind(id)
            .fetch_optional(conn)
            .await?;
    row.map(|row| Ok((id, Money::from_row(&row, "total")?)))
        .transpose()
}
