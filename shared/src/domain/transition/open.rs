//! Begins the history of a return: its row, its first event, and the outbox row of that event.

use serde_json::{Map, Value, json};
use sqlx::{MySqlConnection, QueryBuilder};
use time::OffsetDateTime;

use super::{Cause, Head, Step, TransitionError};
use crate::domain::audit::{self, GENESIS};
use crate::domain::bulk;
use crate::domain::eligibility::POLICY_VERSION;
use crate::domain::event::TopicArgs;
use crate::domain::ids::{CustomerId, EventId, OrderId, ReturnId};
use crate::domain::money::Money;
use crate::domain::outbox::{self, OutboxRow};
use crate::domain::status::{FILED, Status};

/// A return that is to be filed.
#[derive(Debug, Clone)]
pub struct NewReturn {
    pub order_id: OrderId,
    pub customer_id: CustomerId,
    /// The admin who files it for the customer.
    pub filed_by: Option<i64>,
    pub reason: String,
    pub reason_code: Option<String>,
    pub review_required: bool,
    pub refund_amount: Money,
    pub cause: Cause,
}

/// A return that was filed, with the id of its first event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filed {
    pub order_id: OrderId,
    pub return_id: ReturnId,
    pub event_id: EventId,
}

/// New returns whose outbox rows are not written yet: the caller must call [`Opened::announce`].
#[derive(Debug)]
#[must_use = "without `announce` the events never reach Kafka"]
pub struct Opened {
    filed: Vec<Filed>,
    outbox: Vec<OutboxRow>,
}

impl Opened {
    /// The new returns, in the order given to [`open`].
    pub fn filed(&self) -> &[Filed] {
        &self.filed
    }

    /// Writes the outbox rows. It must be the last statement before COMMIT.
    ///
    /// # Errors
    /// A database error: roll back.
    pub async fn announce(
        self,
        conn: &mut MySqlConnection,
        topics: &TopicArgs,
    ) -> Result<Vec<Filed>, TransitionError> {
        outbox::append(conn, topics, &self.outbox).await?;
        Ok(self.filed)
    }
}

/// Writes new returns with their first audit rows. `new` must be sorted by order and hold each order once. `now` is the
/// time of the database's clock, read in this transaction after the order rows were locked.
///
/// # Errors
/// A duplicate on `one_open_return_per_order` means that an order has an open return: roll back all of them.
pub async fn open(
    conn: &mut MySqlConnection,
    now: OffsetDateTime,
    new: &[NewReturn],
) -> Result<Opened, TransitionError> {
    debug_assert!(new.is_sorted_by(|a, b| a.order_id < b.order_id));
    let ids = insert_returns(conn, now, new).await?;
    let mut opened = Opened {
        filed: Vec::with_capacity(new.len()),
        outbox: Vec::with_capacity(new.len()),
    };
    let mut audit = Vec::with_capacity(new.len());
    for (row, return_id) in new.iter().zip(ids) {
        let head = Head {
            return_id,
            order_id: row.order_id,
            version: 0,
            hash: GENESIS.to_owned(),
        };
        let detail = detail(row);
        let step = Step {
            event_type: FILED,
            from: None,
            to: Status::Initiated,
            cause: &row.cause,
            detail: &detail,
        };
        let (audit_row, outbox_row) = head.append(now, &step);
        opened.filed.push(Filed {
            order_id: row.order_id,
            return_id,
            event_id: outbox_row.event_id,
        });
        audit.push(audit_row);
        opened.outbox.push(outbox_row);
    }
    audit::append(conn, &audit).await?;
    Ok(opened)
}

fn detail(new: &NewReturn) -> Map<String, Value> {
    let review = new
        .review_required
        .then(|| ("review_required".to_owned(), json!(true)));
    let filed_by = new.filed_by.map(|id| ("filed_by".to_owned(), json!(id)));
    review.into_iter().chain(filed_by).collect()
}

/// Inserts the rows and returns their ids, in the same order.
///
/// InnoDB gives the rows of one `INSERT … VALUES` consecutive ids if `auto_increment_increment` is 1, which every
/// session of ours sets (MySQL manual, "AUTO_INCREMENT Handling in InnoDB": simple inserts).
async fn insert_returns(
    conn: &mut MySqlConnection,
    now: OffsetDateTime,
    new: &[NewReturn],
) -> Result<Vec<ReturnId>, TransitionError> {
    let mut ids = Vec::with_capacity(new.len());
    for slice in bulk::slices(new) {
        let mut insert = QueryBuilder::new(
            "/* transition::insert_returns */ INSERT INTO returns (order_id, customer_id, filed_by, reason, reason_code, status, \
             version, review_required, policy_version, refund_amount, currency, created_at, updated_at) ",
        );
        insert.push_values(slice, |mut values, row| {
            values
                .push_bind(row.order_id)
                .push_bind(row.customer_id)
                .push_bind(row.filed_by)
                .push_bind(&row.reason)
                .push_bind(&row.reason_code)
                .push_bind(Status::Initiated.as_str())
                .push_bind(1_i32)
                .push_bind(row.review_required)
                .push_bind(POLICY_VERSION)
                .push_bind(row.refund_amount.amount)
                .push_bind(row.refund_amount.currency.as_str())
                .push_bind(now)
                .push_bind(now);
        });
        let first = insert.build().execute(&mut *conn).await?.last_insert_id();
        let first = i64::try_from(first).map_err(|_| TransitionError::Unreadable("returns.id"))?;
        ids.extend((first..).map(ReturnId).take(slice.len()));
    }
    Ok(ids)
}
