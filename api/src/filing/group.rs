//! One transaction for a group of filings: read the orders, decide each in memory, write the accepted ones together.

use std::collections::HashMap;
use std::sync::Arc;

use shared::domain::eligibility::{self, OrderFacts, PolicyArgs};
use shared::domain::ids::{CustomerId, OrderId};
use shared::domain::transition::{self, Filed, NewReturn, TransitionError};
use shared::runtime::db::DbError;
use shared::runtime::killpoint::kill_point;
use sqlx::MySqlConnection;

use super::{Filing, FilingRequest, Receipt};
use crate::error::ApiError;
use crate::store::{self, OrderLock, OrderRow};

/// What the transaction decided about one request.
#[derive(Debug, Clone)]
pub(super) enum FilingOutcome {
    Done(Result<Receipt, ApiError>),
    /// The order is locked by another session, or the customer has none of this id. Only a read that waits for the lock can say which.
    OrderNotSeen,
}

/// What the transaction wrote, and its outcome for each request, in the order of the requests.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) filed: Vec<Filed>,
    pub(super) outcomes: Vec<FilingOutcome>,
}

/// Why a group was not written. Its transaction is rolled back.
#[derive(Debug, thiserror::Error)]
pub(super) enum GroupError {
    #[error("database")]
    Database(#[from] DbError),
    #[error("a filing could not be written")]
    Transition(#[from] TransitionError),
}

impl From<sqlx::Error> for GroupError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// A group under decision. It contains an order and an idempotency key at most once.
struct Group<'a> {
    filing: &'a Filing,
    requests: &'a [Arc<FilingRequest>],
    lock: OrderLock,
    outcomes: Vec<Option<FilingOutcome>>,
}

/// Everything between BEGIN and COMMIT. If the gate is closed, only stored responses are replayed.
///
/// # Errors
/// See [`GroupError`]: the caller runs the group again, or each request on its own.
pub(super) async fn write(
    conn: &mut MySqlConnection,
    filing: &Filing,
    requests: &[Arc<FilingRequest>],
    lock: OrderLock,
) -> Result<Written, GroupError> {
    let mut group = Group {
        filing,
        requests,
        lock,
        outcomes: vec![None; requests.len()],
    };
    group.replay(conn, |outcome| outcome.is_none()).await?;
    if let Err(error) = filing.gate.admit() {
        group.refuse_undecided(&error);
    }
    let filed = group.file_undecided(conn).await?;
    kill_point("api.before_commit");
    let outcomes = group.outcomes.into_iter();
    Ok(Written {
        filed,
        outcomes: outcomes
            .map(|outcome| outcome.expect("every request was refused, replayed or written"))
            .collect(),
    })
}

impl<'a> Group<'a> {
    /// The positions of the requests without an outcome, and the requests.
    fn undecided(&self) -> Vec<(usize, &'a FilingRequest)> {
        let requests = self.requests.iter().map(Arc::as_ref).enumerate();
        requests
            .filter(|(at, _)| self.outcomes[*at].is_none())
            .collect()
    }

    fn refuse_undecided(&mut self, error: &ApiError) {
        for outcome in &mut self.outcomes {
            outcome.get_or_insert_with(|| FilingOutcome::Done(Err(error.clone())));
        }
    }

    /// Gives a request the response that is stored under its key, if its outcome so far is one of `these`.
    async fn replay(
        &mut self,
        conn: &mut MySqlConnection,
        these: impl Fn(&Option<FilingOutcome>) -> bool,
    ) -> Result<(), GroupError> {
        let requests = self.requests.iter().enumerate();
        let keyed: Vec<_> = requests
            .filter(|(at, _)| these(&self.outcomes[*at]))
            .filter_map(|(at, request)| Some((at, request.key.as_ref()?)))
            .collect();
        if keyed.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = keyed.iter().map(|(_, key)| *key).collect();
        let stored = store::read_responses(conn, &keys).await?;
        for (at, key) in keyed {
            if let Some(response) = stored.get(&(key.actor.as_str(), key.key.as_str())) {
                let receipt = key.accept(response).and_then(Receipt::stored);
                self.outcomes[at] = Some(FilingOutcome::Done(receipt));
            }
        }
        Ok(())
    }

    /// Refuses or writes what is left.
    async fn file_undecided(
        &mut self,
        conn: &mut MySqlConnection,
    ) -> Result<Vec<Filed>, GroupError> {
        let undecided = self.undecided().into_iter();
        let wanted: Vec<(OrderId, CustomerId)> =
            undecided.map(|(_, it)| (it.order, it.customer)).collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let rows = store::read_orders(conn, &wanted, self.lock).await?;
        let orders: HashMap<OrderId, OrderRow> =
            rows.into_iter().map(|row| (row.facts.id, row)).collect();
        for (at, request) in self.undecided() {
            self.outcomes[at] = self.refusal(orders.get(&request.order));
        }
        // A concurrent retry may have been committed between the first read of the keys and the read of the orders: its
        // stored response takes precedence over a 409 or 422.
        let is_refused = |outcome: &Option<_>| matches!(outcome, Some(FilingOutcome::Done(Err(_))));
        self.replay(conn, is_refused).await?;
        self.write_accepted(conn, &orders).await
    }

    /// Why this request is not written, or `None` if it is.
    fn refusal(&self, order: Option<&OrderRow>) -> Option<FilingOutcome> {
        let refused = |error| Some(FilingOutcome::Done(Err(error)));
        let Some(order) = order else {
            return match self.lock {
                OrderLock::SkipLocked => Some(FilingOutcome::OrderNotSeen),
                // The same error for an unknown order and for another customer's: a caller must not learn which orders exist.
                OrderLock::Wait => refused(ApiError::UnknownOrder),
            };
        };
        if let Some(return_id) = order.open_return {
            return refused(ApiError::AlreadyOpen { return_id });
        }
        let policy = &self.filing.policy;
        let violations = eligibility::violations(&order.facts, false, order.now, policy);
        if violations.is_empty() {
            None
        } else {
            refused(ApiError::NotEligible(violations))
        }
    }

    /// Writes the requests without an outcome, and their responses.
    async fn write_accepted(
        &mut self,
        conn: &mut MySqlConnection,
        orders: &HashMap<OrderId, OrderRow>,
    ) -> Result<Vec<Filed>, GroupError> {
        let mut accepted = self.undecided();
        let order_of = |request: &FilingRequest| {
            let order = orders.get(&request.order);
            order.expect("a request without an order was refused")
        };
        let times = accepted.iter().map(|(_, it)| order_of(it).now);
        let Some(now) = times.max() else {
            return Ok(Vec::new());
        };
        // Every multi-row insert is sorted by its table's unique key, so that two groups never deadlock on it.
        accepted.sort_unstable_by_key(|(_, request)| request.order);
        let new_returns: Vec<NewReturn> = accepted
            .iter()
            .map(|(_, it)| new_return(it, &order_of(it).facts, &self.filing.policy))
            .collect();
        let opened = transition::open(conn, now, &new_returns).await?;
        kill_point("api.after_insert");
        let mut responses = Vec::new();
        for ((at, request), row) in accepted.iter().zip(opened.filed()) {
            let receipt = Receipt::new(row.return_id);
            if let Some(key) = &request.key {
                responses.push((key, receipt.body.clone()));
            }
            self.outcomes[*at] = Some(FilingOutcome::Done(Ok(receipt)));
        }
        responses.sort_unstable_by_key(|(key, _)| (&key.actor, &key.key));
        store::insert_responses(conn, now, &responses).await?;
        Ok(opened.announce(conn, &self.filing.topics).await?)
    }
}

fn new_return(request: &FilingRequest, order: &OrderFacts, policy: &PolicyArgs) -> NewReturn {
    let refund_amount = order.refundable();
    NewReturn {
        order_id: request.order,
        customer_id: request.customer,
        filed_by: request.filed_by,
        reason: request.reason.clone(),
        reason_code: request.reason_code.clone(),
        review_required: policy.needs_review(&refund_amount),
        refund_amount,
        cause: request.cause.clone(),
    }
}
