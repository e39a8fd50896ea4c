//! What a claim changes about each locked return. Pure: rows in, changes and attempts out.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Map, Value, json};
use shared::domain::actor::Actor;
use shared::domain::eligibility::{OrderFacts, POLICY_VERSION, Violation, violations_of_payment};
use shared::domain::ids::{EventId, OrderId, ReturnId};
use shared::domain::refund::{AttemptId, ProviderKey};
use shared::domain::status::{Action, Status};
use shared::domain::trace_context::TraceContext;
use shared::domain::transition::{Cause, Change, Locked, LockedReturn};
use shared::runtime::clock::Expiry;
use shared::runtime::trace::Span;
use time::OffsetDateTime;

use super::batch::Matched;
use crate::attempt::{OwnedAttempt, SendState};
use crate::config::PROGRAM;
use crate::error::Error;
use crate::message::Record;

/// Everything that one claim writes about returns.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Ascending by return.
    pub(super) attempts: Vec<OwnedAttempt>,
    pub(super) changes: Vec<Change>,
    pub(super) results: Vec<RecordResult>,
}

/// What became of a record that names a return.
#[derive(Debug)]
pub(super) struct RecordResult {
    /// As counted.
    pub(super) result: &'static str,
    pub(super) record: Arc<Record>,
    pub(super) span: Span,
}

/// The result of a record that led to an attempt.
pub(super) const CLAIMED: &str = "claimed";

/// The times of the attempts that one claim makes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) call_deadline: Duration,
    /// The same moment by our own clock.
    pub(super) deadline: Expiry,
    /// An attempt of a younger return is sent without a look-up.
    pub(super) fresh_for: Duration,
}

/// What follows for a return.
#[derive(Debug, PartialEq, Eq)]
enum NextStep {
    Pay {
        approve: bool,
    },
    Reject(Vec<Violation>),
    AwaitReview,
    /// It was claimed, rejected or cancelled before.
    AlreadyMoved,
}

impl Changes {
    pub(super) fn decide(
        matched: &[Matched],
        seen: &HashSet<EventId>,
        locked: &Locked,
        orders: &HashMap<OrderId, OrderFacts>,
        terms: &Terms,
    ) -> Result<Self, Error> {
        let mut all = Self::default();
        let mut taken: HashSet<ReturnId> = HashSet::new();
        let mut by_return: Vec<&Matched> = matched.iter().collect();
        by_return.sort_by_key(|one| one.filing.return_id);
        for one in by_return {
            let duplicate = one.named_by.is_some() && seen.contains(&one.filing.first_event);
            let result = if duplicate || !taken.insert(one.filing.return_id) {
                "duplicate"
            } else {
                let row = locked.get(one.filing.return_id);
                let order = orders.get(&one.filing.order_id);
                let (Some(row), Some(order)) = (row, order) else {
                    return Err(Error::Unreadable(
                        "returns: a return without its row or order",
                    ));
                };
                all.add(row, decide(row, order), one, (locked.now, terms))
            };
            if let Some((record, span)) = one.named_by.clone() {
                all.results.push(RecordResult {
                    result,
                    record,
                    span,
                });
            }
        }
        Ok(all)
    }

    fn add(
        &mut self,
        row: &LockedReturn,
        next: NextStep,
        one: &Matched,
        taking: (OffsetDateTime, &Terms),
    ) -> &'static str {
        match next {
            NextStep::Pay { approve } => {
                if approve {
                    self.change(row, one, Action::Approve, Actor::policy(), approval());
                }
                self.change(
                    row,
                    one,
                    Action::Claim,
                    Actor::system(PROGRAM),
                    claim_detail(row),
                );
                self.attempts.push(first_attempt(row, one, taking));
                CLAIMED
            }
            NextStep::Reject(violations) => {
                self.change(
                    row,
                    one,
                    Action::Reject,
                    Actor::system(PROGRAM),
                    rejection(&violations),
                );
                "rejected"
            }
            NextStep::AwaitReview => "awaits_review",
            NextStep::AlreadyMoved => "already_moved",
        }
    }

    fn change(
        &mut self,
        row: &LockedReturn,
        one: &Matched,
        action: Action,
        actor: Actor,
        detail: Map<String, Value>,
    ) {
        self.changes.push(Change {
            return_id: row.id,
            action,
            cause: Cause {
                actor,
                request_id: None,
                trace: trace(one.trace.as_ref(), row),
            },
            detail,
        });
    }
}

/// The given context; without one the return's own trace continues.
fn trace(given: Option<&TraceContext>, row: &LockedReturn) -> TraceContext {
    let context = given.or(row.trace.as_ref()).cloned();
    context.unwrap_or_else(TraceContext::new_root)
}

/// Review comes after the money: no person should review a return that is rejected anyway. Everything else was decided when
/// the return was filed.
fn decide(row: &LockedReturn, order: &OrderFacts) -> NextStep {
    let approve = match row.status {
        Status::Initiated => true,
        Status::Approved => false,
        Status::Rejected
        | Status::Cancelled
        | Status::RefundPending
        | Status::Refunded
        | Status::RefundFailed => return NextStep::AlreadyMoved,
    };
    let violations = violations_of_payment(order, &row.refund_amount);
    if !violations.is_empty() {
        NextStep::Reject(violations)
    } else if approve && row.review_required {
        NextStep::AwaitReview
    } else {
        NextStep::Pay { approve }
    }
}

fn first_attempt(
    row: &LockedReturn,
    one: &Matched,
    (now, terms): (OffsetDateTime, &Terms),
) -> OwnedAttempt {
    const FIRST: i32 = 1;
    OwnedAttempt {
        id: AttemptId {
            return_id: row.id,
            number: FIRST,
        },
        order_id: row.order_id,
        key: ProviderKey::of(one.filing.first_event, FIRST),
        amount: row.refund_amount.clone(),
        sent: if now - row.created_at < terms.fresh_for {
            SendState::Fresh
        } else {
            SendState::Unsent
        },
        owned_until: now + terms.call_deadline,
        deadline: terms.deadline,
        submitted: OnceLock::new(),
        trace: Some(trace(one.trace.as_ref(), row)),
        earlier: None,
    }
}

fn approval() -> Map<String, Value> {
    object([
        ("policy_version", json!(POLICY_VERSION)),
        ("auto", json!(true)),
    ])
}

fn rejection(violations: &[Violation]) -> Map<String, Value> {
    object([
        ("policy_version", json!(POLICY_VERSION)),
        ("reasons", json!(violations)),
    ])
}

fn claim_detail(row: &LockedReturn) -> Map<String, Value> {
    object([
        ("attempt", json!(1)),
        ("amount", json!(row.refund_amount.decimal_text())),
        ("currency", json!(row.refund_amount.currency)),
    ])
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
