//! What follows when a paid attempt is looked up again. Only an attempt that a process has taken over for that gets here,
//! so that a late response to an earlier call is never taken for news.

use serde_json::json;
use time::OffsetDateTime;

use super::{RefundState, SettleStep, detail, only};
use crate::domain::eligibility::OrderFacts;
use crate::domain::refund::{AttemptState, Outcome, Settled};
use crate::domain::status::{Action, Status};

/// As recorded when a reversal cannot be written, because the order has another open return.
const REVERSED_BUT_ORDER_OPEN: &str = "reversed_order_has_open_return";

impl RefundState {
    pub(super) fn rechecked(
        &mut self,
        at: usize,
        outcome: &Outcome,
        order: &mut OrderFacts,
        now: OffsetDateTime,
    ) -> SettleStep {
        let row = &mut self.attempts[at];
        match outcome {
            Outcome::Succeeded { gateway_ref } if row.gateway_ref.as_ref() == Some(gateway_ref) => {
                row.last_error = None;
                row.rechecked(now);
                only(Settled::Agreed)
            }
            Outcome::Reversed {
                order_has_open_return: true,
                ..
            } => {
                let step = self.doubt(at, REVERSED_BUT_ORDER_OPEN);
                self.attempts[at].recheck_soon(now);
                step
            }
            // Two persons marked it as paid, or it was paid before payments had a date. The provider's word alone does not
            // undo that: the money may have been paid in another way.
            Outcome::Reversed { .. } if row.succeeded_at.is_none() => {
                self.doubt_until_next(at, AttemptState::Reversed.as_str(), now)
            }
            Outcome::Reversed { code, .. } => self.reversed(at, code, order),
            Outcome::NotSent { .. } | Outcome::StillOpen { .. } | Outcome::Unknown { .. } => {
                row.recheck_soon(now);
                only(Settled::Postponed)
            }
            Outcome::Succeeded { .. } => self.doubt_until_next(at, "succeeded", now),
            Outcome::Declined { .. } => self.doubt_until_next(at, "declined", now),
            Outcome::Pending { .. } => self.doubt_until_next(at, "pending", now),
            Outcome::Park { reason } => self.doubt_until_next(at, reason.as_str(), now),
        }
    }

    /// The money came back. The return is unpaid again, unless another attempt has paid it.
    fn reversed(&mut self, at: usize, code: &str, order: &mut OrderFacts) -> SettleStep {
        let row = &mut self.attempts[at];
        row.close(AttemptState::Reversed, None);
        row.last_error = Some(code.to_owned());
        if self.status != Status::Refunded || self.has_succeeded() {
            return self.disagreement(at, AttemptState::Reversed.as_str());
        }
        let row = &self.attempts[at];
        order.refunded_here -= row.amount.amount;
        let detail = detail(
            row,
            &[
                ("gateway", json!(row.gateway)),
                ("gateway_ref", json!(row.gateway_ref)),
                ("code", json!(code)),
            ],
        );
        SettleStep {
            settled: Settled::Reversed,
            change: Some((Action::Reverse, detail)),
        }
    }

    fn doubt_until_next(&mut self, at: usize, answer: &str, now: OffsetDateTime) -> SettleStep {
        let step = self.doubt(at, answer);
        self.attempts[at].rechecked(now);
        step
    }

    /// The provider no longer confirms the payment, but does not say either that it was taken back. The status stays: an
    /// archived refund is "not found", too. It is recorded once, for a person.
    fn doubt(&mut self, at: usize, answer: &str) -> SettleStep {
        let row = &mut self.attempts[at];
        if row.last_error.as_deref() == Some(answer) {
            return only(Settled::Postponed);
        }
        row.last_error = Some(answer.to_owned());
        self.disagreement(at, answer)
    }
}

#[cfg(test)]
mod tests;
