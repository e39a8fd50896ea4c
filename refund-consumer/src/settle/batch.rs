//! The locked rows of a settlement batch, changed in memory.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use shared::domain::actor::Actor;
use shared::domain::eligibility::OrderFacts;
use shared::domain::ids::{OrderId, ReturnId};
use shared::domain::refund::{Attempt, Outcome, OutcomeReport, Pauses, RefundState, Settled};
use shared::domain::transition::{Cause, Change, Locked, LockedReturn};

use super::Settlement;
use crate::attempt::NotSettled;
use crate::config::PROGRAM;

pub(super) struct SettlementBatch {
    before: HashMap<ReturnId, Vec<Attempt>>,
    states: BTreeMap<ReturnId, RefundState>,
    orders: HashMap<OrderId, OrderFacts>,
    /// Those of reversed refunds that have another open return.
    open_orders: Vec<OrderId>,
    pub(super) changes: Vec<Change>,
    /// How long after its filing each return was refunded.
    pub(super) refunded_after: Vec<Duration>,
}

impl SettlementBatch {
    pub(super) fn new(
        locked: &Locked,
        before: HashMap<ReturnId, Vec<Attempt>>,
        orders: HashMap<OrderId, OrderFacts>,
        open_orders: Vec<OrderId>,
    ) -> Self {
        let state = |row: &LockedReturn| RefundState {
            status: row.status,
            attempts: before.get(&row.id).cloned().unwrap_or_default(),
        };
        Self {
            states: locked
                .rows()
                .iter()
                .map(|row| (row.id, state(row)))
                .collect(),
            before,
            orders,
            open_orders,
            changes: Vec::new(),
            refunded_after: Vec::new(),
        }
    }

    /// Settles one report on what those before it have left. An attempt has a return and an order (foreign keys), so a
    /// row that is not here is held.
    pub(super) fn settle(
        &mut self,
        one: &Settlement,
        locked: &Locked,
        pauses: Pauses<'_>,
    ) -> Result<Settled, NotSettled> {
        let id = one.report.attempt.return_id;
        let (row, state) = locked
            .get(id)
            .zip(self.states.get_mut(&id))
            .ok_or(NotSettled::Held)?;
        let order = self.orders.get_mut(&row.order_id).ok_or(NotSettled::Held)?;
        let report = complete(&one.report, self.open_orders.contains(&row.order_id));
        let step = state.settle(&report, order, locked.now, pauses);
        if let Some((action, detail)) = step.change {
            self.changes.push(Change {
                return_id: id,
                action,
                cause: Cause {
                    actor: Actor::system(PROGRAM),
                    request_id: None,
                    trace: one.span.context().clone(),
                },
                detail,
            });
        }
        if step.settled.is_refund() {
            let after = (locked.now - row.created_at).try_into();
            self.refunded_after.push(after.unwrap_or_default());
        }
        Ok(step.settled)
    }

    pub(super) fn changed_attempts(&self) -> Vec<&Attempt> {
        let was = |row: &Attempt| {
            let rows = self.before.get(&row.id.return_id)?;
            rows.iter().find(|old| old.id == row.id)
        };
        self.states
            .values()
            .flat_map(|state| &state.attempts)
            .filter(|row| was(row) != Some(row))
            .collect()
    }
}

/// The report, with what only the locked order shows.
fn complete(report: &OutcomeReport, order_has_open_return: bool) -> Cow<'_, OutcomeReport> {
    match &report.outcome {
        Outcome::Reversed { code, .. } => Cow::Owned(OutcomeReport {
            outcome: Outcome::Reversed {
                code: code.clone(),
                order_has_open_return,
            },
            ..report.clone()
        }),
        _ => Cow::Borrowed(report),
    }
}
