//! What every decision has in common: who decides, the locked rows, and the one change that is written.

use serde::Serialize;
use serde_json::{Map, Value, json};
use shared::domain::event::TopicArgs;
use shared::domain::ids::{EventId, ReturnId};
use shared::domain::refund::{IfHeld, RefundState, lock_attempts};
use shared::domain::status::{Action, Status};
use shared::domain::trace_context::TraceContext;
use shared::domain::transition::{self, Applied, Cause, Change, Locked};
use shared::runtime::db::DbFailure;
use sqlx::mysql::MySqlConnection;
use sqlx::{MySql, Transaction};

use super::case::Case;
use super::{no_such_return, parse_return};
use crate::error::CtlError;
use crate::operator::{Operator, OperatorToken};
use crate::session::SessionArgs;
use crate::store::actions::{Verb, record_return};
use crate::store::{refunds, settle};

// No doc comment: see `session::SessionArgs`.
#[derive(Debug, clap::Args)]
pub(super) struct ActArgs {
    /// The return's id.
    #[arg(value_name = "RETURN", value_parser = parse_return)]
    pub(super) return_id: ReturnId,

    #[command(flatten)]
    operator: OperatorToken,

    #[command(flatten)]
    pub(super) topics: TopicArgs,

    #[command(flatten)]
    pub(super) session: SessionArgs,
}

impl ActArgs {
    /// Who decides, then a connection: whoever may not decide learns nothing about the return.
    pub(super) async fn begin(&self) -> Result<(Operator, MySqlConnection), CtlError> {
        let problems = self.topics.problems();
        if !problems.is_empty() {
            return Err(CtlError::Usage(problems));
        }
        let admin = self.operator.admin()?;
        let mut conn = self.session.connect().await?;
        let operator = admin.unless_revoked(&mut conn).await?;
        Ok((operator, conn))
    }
}

/// Whether the order is locked too: only where money is counted on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OrderLock {
    /// Read plainly: an order has one open return at a time, so nobody but the shop changes its sum meanwhile.
    None,
    Update,
}

/// The rows of a return, locked.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) locked: Locked,
    pub(super) case: Case,
}

/// Locks a return's rows in the system's one order: the order, the return, its attempts.
pub(super) async fn hold(
    tx: &mut MySqlConnection,
    id: ReturnId,
    lock: OrderLock,
) -> Result<Held, CtlError> {
    let order_id = settle::order_of(tx, id)
        .await?
        .ok_or_else(|| no_such_return(id))?;
    let order = match lock {
        OrderLock::Update => settle::lock_order(tx, order_id).await?,
        OrderLock::None => refunds::read_order(tx, order_id).await?,
    };
    let locked = transition::lock(tx, &[id]).await?;
    let (Some(order), Some(row)) = (order, locked.get(id)) else {
        return Err(no_such_return(id));
    };
    let mut attempts = lock_attempts(tx, &[id], IfHeld::Wait).await?;
    let case = Case {
        return_id: id,
        customer_id: row.customer_id,
        version: row.version,
        refund_amount: row.refund_amount.clone(),
        order,
        refund: RefundState {
            status: row.status,
            attempts: attempts.remove(&id).unwrap_or_default(),
        },
    };
    Ok(Held { locked, case })
}

/// Nobody decides about their own return.
pub(super) fn refuse_own(case: &Case, operator: &Operator) -> Result<(), CtlError> {
    let caller = &operator.caller;
    if caller.is(case.customer_id) {
        return Err(CtlError::Problem(format!(
            "return {} is your own (user {}); nothing was changed.\nTo do: ask another admin",
            case.return_id, caller.user
        )));
    }
    Ok(())
}

/// The state of the return does not allow it.
pub(super) fn not_now(id: ReturnId, why: &str) -> CtlError {
    CtlError::Problem(format!(
        "return {id}: {why}; nothing was changed.\n\
         To do: `returnsctl refunds show {id}` tells its history and what may be done now"
    ))
}

/// A statement touched another number of rows than its lock promised: roll back.
pub(super) fn expect_one(rows: u64) -> Result<(), CtlError> {
    if rows == 1 {
        return Ok(());
    }
    Err(CtlError::Problem(format!(
        "a statement changed {rows} rows instead of one; everything was rolled back.\n\
         To do: see that nobody changes refunds or orders by hand, then run again"
    )))
}

/// Records what was decided, and which token proved by whom; answers the number of the row.
pub(super) async fn record(
    tx: &mut MySqlConnection,
    verb: Verb,
    operator: &Operator,
    id: ReturnId,
    reason: &str,
    mut details: Value,
) -> Result<u64, CtlError> {
    details["token"] = json!(operator.token);
    Ok(record_return(tx, verb, &operator.caller.actor(), id, reason, &details).await?)
}

/// Commits a decision. Without the server's answer nobody knows whether it was carried out.
pub(super) async fn commit(tx: Transaction<'_, MySql>, id: ReturnId) -> Result<(), CtlError> {
    tx.commit()
        .await
        .map_err(|error| match DbFailure::of(&error) {
            DbFailure::ConnectionLost => CtlError::Unclear {
                problem: format!(
                    "the connection was lost at COMMIT: what you decided about return {id} may have been carried out.\n\
                     To do: `returnsctl refunds show {id}` tells"
                ),
                source: Box::new(error),
            },
            DbFailure::Duplicate { .. }
            | DbFailure::LockConflict
            | DbFailure::Unavailable
            | DbFailure::Other => error.into(),
        })
}

/// Writes the change: status, audit row and outbox row. The last statement before COMMIT.
pub(super) async fn write(
    tx: &mut MySqlConnection,
    held: &mut Held,
    topics: &TopicArgs,
    operator: &Operator,
    action: Action,
    detail: Map<String, Value>,
) -> Result<Applied, CtlError> {
    let id = held.case.return_id;
    let trace_id = held.locked.get(id).and_then(|row| row.trace_id.as_deref());
    let change = Change {
        return_id: id,
        action,
        cause: Cause {
            actor: operator.caller.actor(),
            request_id: None,
            trace: trace_id.map_or_else(TraceContext::new_root, TraceContext::continuing),
        },
        detail,
    };
    let applied = transition::apply(tx, &mut held.locked, topics, &[change]).await?;
    Ok(applied[0])
}

/// What was decided and written. The names are those of `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Decision {
    pub(super) action: &'static str,
    pub(super) return_id: ReturnId,
    pub(super) status: Status,
    pub(super) seq: i32,
    pub(super) event_id: EventId,
    pub(super) attempt: i32,
    pub(super) decided_by: i64,
    pub(super) operator_action: u64,
}
