//! Synthetic load for the relay: many events per return, each written by `shared::domain::transition` under its return's
//! row lock, as the api and the consumer write theirs.

use shared::domain::actor::Actor;
use shared::domain::event::TopicArgs;
use shared::domain::ids::{CustomerId, OrderId, ReturnId};
use shared::domain::money::{Currency, Money};
use shared::domain::status::{Action, Status};
use shared::domain::trace_context::TraceContext;
use shared::domain::transition::{self, Applied, Cause, Change, NewReturn};
use shared::runtime::db;
use shared::test_support::TestDb;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{Connection, MySqlConnection};

const CUSTOMER: CustomerId = CustomerId(42);
/// Returns of one filing transaction.
const GROUP: usize = 500;

/// One connection that writes.
#[derive(Debug)]
pub struct Writer {
    conn: MySqlConnection,
    topics: TopicArgs,
}

impl Writer {
    /// # Errors
    /// MySQL cannot be reached.
    pub async fn connect(options: &MySqlConnectOptions, topics: TopicArgs) -> anyhow::Result<Self> {
        let conn = db::connect(options).await?;
        Ok(Self { conn, topics })
    }

    /// Seeds the orders and files a return for each: one event per return, seq 1.
    ///
    /// # Errors
    /// A database error.
    pub async fn file(&mut self, db: &TestDb, orders: &[OrderId]) -> anyhow::Result<Vec<ReturnId>> {
        let mut returns = Vec::with_capacity(orders.len());
        for group in orders.chunks(GROUP) {
            db.insert_orders(group, CUSTOMER).await;
            let new: Vec<NewReturn> = group.iter().map(|order| new_return(*order)).collect();
            let mut tx = self.conn.begin().await?;
            let now = sqlx::query_scalar("SELECT UTC_TIMESTAMP(6)")
                .fetch_one(&mut *tx)
                .await?;
            let opened = transition::open(&mut tx, now, &new).await?;
            let filed = opened.announce(&mut tx, &self.topics).await?;
            tx.commit().await?;
            returns.extend(filed.iter().map(|filed| filed.return_id));
        }
        Ok(returns)
    }

    /// Writes `each` further changes of every return in one transaction; returns after COMMIT. The ids must differ.
    ///
    /// # Errors
    /// A database error; the changes may be committed all the same.
    pub async fn change(
        &mut self,
        returns: &[ReturnId],
        each: usize,
    ) -> anyhow::Result<Vec<Applied>> {
        let mut tx = self.conn.begin().await?;
        let mut locked = transition::lock(&mut tx, returns).await?;
        let mut changes = Vec::with_capacity(returns.len() * each);
        for row in locked.rows() {
            let mut status = row.status;
            for _ in 0..each {
                let action = next_action(status);
                status = status.after(action)?;
                changes.push(Change {
                    return_id: row.id,
                    action,
                    cause: cause(),
                    detail: serde_json::Map::new(),
                });
            }
        }
        let applied = transition::apply(&mut tx, &mut locked, &self.topics, &changes).await?;
        tx.commit().await?;
        Ok(applied)
    }
}

/// A path through the transition table that never ends.
fn next_action(status: Status) -> Action {
    match status {
        Status::Initiated => Action::Approve,
        Status::Approved => Action::Claim,
        _ => Action::OutcomeUnknown,
    }
}

fn cause() -> Cause {
    Cause {
        actor: Actor::system("load"),
        request_id: None,
        trace: TraceContext::new_root(),
    }
}

fn new_return(order_id: OrderId) -> NewReturn {
    let euro = Currency::parse("EUR").expect("a currency");
    NewReturn {
        order_id,
        customer_id: CUSTOMER,
        filed_by: None,
        reason: "load".to_owned(),
        reason_code: None,
        review_required: false,
        refund_amount: Money::new(rust_decimal::Decimal::new(4990, 2), euro),
        cause: cause(),
    }
}
