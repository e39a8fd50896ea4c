//! `seed`: orders that may be returned, the same every time, and more on every run.

use rust_decimal::Decimal;
use shared::domain::eligibility::{OrderFacts, PolicyArgs, violations};
use shared::domain::ids::OrderId;
use shared::domain::money::{Currency, Money};
use shared::test_support::TestDb;
use time::OffsetDateTime;

use crate::harness::{Ran, expect_code};

type OrderRow = (i64, i64, Decimal, String, String, OffsetDateTime, Decimal);

fn seed(db: &TestDb, code: i32, args: &[&str]) -> Ran {
    let args = [&["seed", "--json"], args].concat();
    expect_code(code, &args, &[("DATABASE_URL", db.url())])
}

async fn orders(db: &TestDb) -> Vec<OrderRow> {
    sqlx::query_as(
        "SELECT id, customer_id, total, currency, status, delivered_at, refunded_amount FROM orders ORDER BY id",
    )
    .fetch_all(&db.pool)
    .await
    .expect("orders")
}

#[tokio::test]
async fn a_repeated_run_continues_after_the_highest_id() {
    let db = TestDb::create().await;
    // More than one statement, and a last one that is not full.
    let first = seed(&db, 0, &["--orders", "2500"]);
    assert_eq!(first.stderr, "", "no progress in a pipe");
    let first = first.json();
    assert_eq!(
        (&first["first_id"], &first["last_id"]),
        (&1.into(), &2_500.into())
    );
    let second = seed(&db, 0, &["--orders", "1"]).json();
    assert_eq!(
        (&second["first_id"], &second["last_id"]),
        (&2_501.into(), &2_501.into())
    );
    let ids: Vec<i64> = orders(&db).await.iter().map(|row| row.0).collect();
    assert_eq!(ids, (1..=2_501).collect::<Vec<i64>>());
}

#[tokio::test]
async fn every_order_is_eligible_for_return() {
    let db = TestDb::create().await;
    seed(&db, 0, &["--orders", "1500"]);
    let policy = PolicyArgs {
        return_window_days: 30,
        review_above_amount: None,
    };
    for (id, customer, total, currency, status, delivered_at, refunded) in orders(&db).await {
        let order = OrderFacts {
            id: OrderId(id),
            total: Money::new(total, Currency::parse(&currency).expect("a code")),
            refunded_by_shop: refunded,
            refunded_here: Decimal::ZERO,
            status,
            delivered_at: Some(delivered_at),
        };
        assert_eq!(customer, 42);
        assert_eq!(
            violations(&order, false, OffsetDateTime::now_utc(), &policy),
            [],
            "{order:?}"
        );
        assert!(delivered_at < OffsetDateTime::now_utc());
    }
}

#[tokio::test]
async fn orders_follow_from_their_ids_alone() {
    let (one, two) = (TestDb::create().await, TestDb::create().await);
    seed(&one, 0, &["--orders", "3000", "--customers", "7"]);
    seed(
        &two,
        0,
        &["--orders", "1000", "--customers", "7", "--connections", "1"],
    );
    seed(
        &two,
        0,
        &["--orders", "2000", "--customers", "7", "--first-id", "1001"],
    );
    let rows = orders(&one).await;
    assert_eq!(rows, orders(&two).await);
    assert!(rows.iter().all(|row| row.1 == 1 + row.0 % 7));
    assert!(rows.iter().any(|row| row.2 != rows[0].2), "totals differ");
}

#[tokio::test]
async fn taken_ids_are_refused_before_anything_is_written() {
    let db = TestDb::create().await;
    seed(&db, 0, &["--orders", "10", "--first-id", "100"]);
    let ran = seed(&db, 1, &["--orders", "50", "--first-id", "60"]);
    assert!(
        ran.stderr.contains("10 of the ids 60 to 109 are taken"),
        "{}",
        ran.stderr
    );
    assert_eq!(orders(&db).await.len(), 10);
}

#[tokio::test]
async fn a_database_without_a_schema_is_an_error() {
    let db = TestDb::create_empty().await;
    let ran = seed(&db, 1, &["--orders", "1"]);
    assert!(ran.stderr.contains("returnsctl migrate"), "{}", ran.stderr);
}

#[test]
fn one_customer_and_many_contradict_each_other() {
    let args = [
        "seed",
        "--orders",
        "1",
        "--customer",
        "1",
        "--customers",
        "2",
    ];
    let ran = expect_code(64, &args, &[("DATABASE_URL", "mysql://u@127.0.0.1:1/d")]);
    assert!(ran.stderr.contains("contradict"), "{}", ran.stderr);
}
