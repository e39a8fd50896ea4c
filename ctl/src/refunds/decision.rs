//! What all decisions share: the admin, the locked rows, and the one change that is written.

use std::sync::Arc;

use clap::value_parser;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::{Map, Value, json};
use shared::domain::event::TopicArgs;
use shared::domain::ids::{EventId, ReturnId};
use shared::domain::refund::{Attempt, IfHeld, RefundState, lock_attempts, update_attempts};
use shared::domain::status::{Action, Status};
use shared::domain::transition::{self, Cause, Change, Locked};
use shared::runtime::db::{self, DbError};
use shared::runtime::trace::{self, SpanKind};
use sqlx::mysql::MySqlConnection;

use super::refund::Refund;
use crate::error::CtlError;
use crate::operator::{Operator, OperatorToken, parse_reason, parse_reason_code};
use crate::return_id::{no_such_return, parse_return};
use crate::session::SessionArgs;
use crate::store::actions::{Author, Subject, Verb, record};
use crate::store::refunds::{Lock, order_of, read_order};

// No doc comment: see `SessionArgs`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct DecisionArgs {
    /// The return's id.
    #[arg(value_name = "RETURN", value_parser = parse_return)]
    pub(super) return_id: ReturnId,

    #[command(flatten)]
    operator: OperatorToken,

    #[command(flatten)]
    topics: TopicArgs,

    #[command(flatten)]
    pub(super) session: SessionArgs,
}

// No doc comment: see `SessionArgs`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct AttemptArgs {
    #[command(flatten)]
    pub(super) about: About,

    #[command(flatten)]
    pub(super) decision: DecisionArgs,
}

// No doc comment: see `SessionArgs`. The attempt that a decision is about, and the grounds for it.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct About {
    /// The attempt that you have looked at, with its number from `refunds show`.
    #[arg(long, value_name = "N", value_parser = value_parser!(i32).range(1..))]
    pub(super) attempt: i32,

    /// Why, for a reader a year from now: an incident, a ticket, a sentence.
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    pub(super) reason: String,

    /// A code of the shop that explains it, 1 to 32 of a-z, 0-9 and _. The event has it, beside the number of the action; your
    /// own words stay with the action.
    #[arg(long, value_name = "CODE", value_parser = parse_reason_code)]
    pub(super) reason_code: Option<String>,
}

impl DecisionArgs {
    /// Locks the return's rows and runs `decide` on them, in one transaction. The token is checked first, so that a person
    /// who may not decide learns nothing about the return. `order` says whether the order is locked too: only a decision
    /// that makes the return refunded does that. Otherwise the order is read plainly: it has one open return at a time, so
    /// only the shop could change its sum meanwhile.
    pub(super) async fn decide<T, D>(
        &self,
        name: &'static str,
        order: Lock,
        decide: D,
    ) -> Result<T, CtlError>
    where
        T: Send + 'static,
        D: for<'d> Fn(Decision<'d>) -> BoxFuture<'d, Result<T, CtlError>> + Send + Sync + 'static,
    {
        let problems = self.topics.problems();
        if !problems.is_empty() {
            return Err(CtlError::Usage(problems));
        }
        let admin = self.operator.admin()?;
        let session = self.session.connect().await?;
        let operator = admin.unless_revoked(&session).await?;
        let id = self.return_id;
        let shared = Arc::new((operator, self.topics.clone(), decide));
        let decided = session.transaction_or(
            name,
            move |tx| {
                let shared = Arc::clone(&shared);
                Box::pin(async move {
                    let (operator, topics, decide) = shared.as_ref();
                    decide(Decision::lock(tx, id, order, operator, topics).await?).await
                })
            },
            |cause| unclear(id, cause),
        );
        decided.await
    }
}

/// A return whose rows are locked, and the admin who decides about it.
pub(super) struct Decision<'d> {
    pub(super) tx: &'d mut MySqlConnection,
    pub(super) refund: Refund,
    pub(super) locked: Locked,
    pub(super) operator: &'d Operator,
    topics: &'d TopicArgs,
}

/// What a decision writes, beside the attempts.
pub(super) struct Outcome {
    /// The name of the command.
    pub(super) command: &'static str,
    pub(super) verb: Verb,
    pub(super) action: Action,
    /// The reason is for `operator_actions`, the rest for the event too.
    pub(super) about: About,
    /// For `operator_actions`.
    pub(super) details: Value,
    /// For the event, beside the attempt and the number of the recorded action.
    pub(super) event_data: Map<String, Value>,
}

impl<'d> Decision<'d> {
    /// Locks in the order that all programs keep: the order, the return, its attempts.
    ///
    /// # Errors
    /// There is no such return, or it is the operator's own, or the operator has filed it.
    async fn lock(
        tx: &'d mut MySqlConnection,
        id: ReturnId,
        order: Lock,
        operator: &'d Operator,
        topics: &'d TopicArgs,
    ) -> Result<Self, CtlError> {
        // The consumer waits for these rows.
        db::shorten_idle_timeout(tx).await?;
        let order_id = order_of(tx, id).await?.ok_or_else(|| no_such_return(id))?;
        let order = read_order(tx, order_id, order).await?;
        let locked = transition::lock(tx, &[id]).await?;
        let (Some(order), Some(row)) = (order, locked.get(id)) else {
            return Err(no_such_return(id));
        };
        let mut attempts = lock_attempts(tx, &[id], IfHeld::Wait).await?;
        let refund = Refund {
            return_id: id,
            customer_id: row.customer_id,
            filed_by: row.filed_by,
            version: row.version,
            amount: row.refund_amount.clone(),
            order,
            state: RefundState {
                status: row.status,
                attempts: attempts.remove(&id).unwrap_or_default(),
            },
        };
        refuse_own(&refund, operator)?;
        Ok(Self {
            tx,
            refund,
            locked,
            operator,
            topics,
        })
    }

    /// Records the decision with the token that proved the operator's role; answers the number of the row.
    pub(super) async fn record(
        &mut self,
        verb: Verb,
        reason: &str,
        mut details: Value,
    ) -> Result<u64, CtlError> {
        details["token"] = json!(self.operator.token);
        let actor = self.operator.caller.actor();
        let author = Author {
            actor_type: actor.kind.as_str(),
            actor_id: actor.id,
            reason: reason.to_owned(),
        };
        let subject = Subject::Return(self.refund.return_id, &details);
        Ok(record(self.tx, verb, &author, subject).await?.id)
    }

    /// Records the decision, and writes the change: status, audit row and outbox row. The last step of a decision.
    pub(super) async fn write(mut self, outcome: Outcome) -> Result<Decided, CtlError> {
        let Outcome {
            about,
            mut details,
            mut event_data,
            ..
        } = outcome;
        if let Some(code) = about.reason_code {
            details["reason_code"] = json!(code);
            event_data.insert("reason_code".to_owned(), json!(code));
        }
        let recorded = self.record(outcome.verb, &about.reason, details).await?;
        event_data.insert("attempt".to_owned(), json!(about.attempt));
        event_data.insert("operator_action".to_owned(), json!(recorded));
        let id = self.refund.return_id;
        // A trace of its own: the return's may have ended days ago.
        let before = self.locked.get(id).and_then(|row| row.trace.as_ref());
        let span = trace::span(SpanKind::Internal, outcome.verb.as_str())
            .linked_to(before)
            .start();
        let change = Change {
            return_id: id,
            action: outcome.action,
            cause: Cause {
                actor: self.operator.caller.actor(),
                request_id: None,
                trace: span.context().clone(),
            },
            detail: event_data,
        };
        let applied = transition::apply(self.tx, &mut self.locked, self.topics, &[change]).await?;
        let [applied] = applied.as_slice() else {
            unreachable!("one change is applied once");
        };
        Ok(Decided {
            action: outcome.command,
            return_id: id,
            status: applied.status,
            seq: applied.seq,
            event_id: applied.event_id,
            attempt: about.attempt,
            decided_by: self.operator.caller.user,
            operator_action: recorded,
        })
    }
}

/// Admins cannot decide about their own returns, or about those that they filed for a customer.
fn refuse_own(refund: &Refund, operator: &Operator) -> Result<(), CtlError> {
    let caller = &operator.caller;
    let why = if caller.is(refund.customer_id) {
        "is your own"
    } else if refund.filed_by == Some(caller.user) {
        "was filed by you"
    } else {
        return Ok(());
    };
    Err(CtlError::Problem(format!(
        "return {} {why} (user {}); nothing was changed.\nTo do: ask another admin",
        refund.return_id, caller.user
    )))
}

/// The error when the state of the return does not allow the decision.
pub(super) fn not_now(id: ReturnId, why: impl AsRef<str>) -> CtlError {
    CtlError::Problem(format!(
        "return {id}: {}; nothing was changed.\n\
         To do: `returnsctl refunds show {id}` shows its history and what may be done now",
        why.as_ref()
    ))
}

/// Writes attempts that were closed under their lock. If it changes another number of rows, the decision is rolled back.
pub(super) async fn write_attempts(
    tx: &mut MySqlConnection,
    mut closed: Vec<Attempt>,
    locked: &Locked,
) -> Result<(), CtlError> {
    closed.sort_unstable_by_key(|attempt| attempt.id);
    let closed: Vec<&Attempt> = closed.iter().collect();
    let (expected, rows) = (
        closed.len(),
        update_attempts(tx, &closed, locked.now).await?,
    );
    if usize::try_from(rows) == Ok(expected) {
        return Ok(());
    }
    Err(CtlError::Problem(format!(
        "a statement changed {rows} rows instead of {expected}; everything was rolled back.\n\
         To do: see that nobody changes refunds by hand, then run again"
    )))
}

/// Without the response to COMMIT, the outcome is unknown.
fn unclear(id: ReturnId, cause: DbError) -> CtlError {
    CtlError::Unclear {
        problem: format!(
            "the connection was lost at COMMIT: your decision about return {id} may have been carried out.\n\
             To do: `returnsctl refunds show {id}` shows whether it was"
        ),
        source: Box::new(cause),
    }
}

/// A decision that was written. The names are those of `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Decided {
    pub(super) action: &'static str,
    pub(super) return_id: ReturnId,
    pub(super) status: Status,
    pub(super) seq: i32,
    pub(super) event_id: EventId,
    pub(super) attempt: i32,
    pub(super) decided_by: i64,
    pub(super) operator_action: u64,
}
