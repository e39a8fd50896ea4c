//! What follows when the provider has paid: the return is refunded, unless another attempt has paid or may have paid.

use serde_json::json;
use time::OffsetDateTime;

use super::{RefundState, SettleStep, detail, only};
use crate::domain::eligibility::OrderFacts;
use crate::domain::refund::{Attempt, AttemptState, OutcomeReport, ParkReason, Settled};
use crate::domain::status::{Action, Status};

impl RefundState {
    pub(super) fn succeeded(
        &mut self,
        at: usize,
        report: &OutcomeReport,
        gateway_ref: &str,
        order: &mut OrderFacts,
        now: OffsetDateTime,
    ) -> SettleStep {
        let row = &mut self.attempts[at];
        if row.state == AttemptState::Succeeded {
            if row.gateway_ref.as_deref() == Some(gateway_ref) {
                return only(Settled::Agreed);
            }
            // Without a reference people marked it as paid: they may mean another payment.
            row.gateway_ref
                .get_or_insert_with(|| gateway_ref.to_owned());
            return self.disagreement(at, "succeeded");
        }
        if row.state == AttemptState::Reversed && row.gateway_ref.as_deref() == Some(gateway_ref) {
            // A response to a call from before the reversal. Another reference is another payment.
            return only(Settled::Agreed);
        }
        match self.status {
            Status::RefundPending | Status::RefundFailed => {}
            Status::Refunded => {
                // Paid twice, or people have marked it as paid and were right. A person must look either way.
                self.attempts[at].succeed(gateway_ref, now);
                return self.disagreement(at, "succeeded");
            }
            Status::Initiated | Status::Approved | Status::Rejected | Status::Cancelled => {
                return self.stuck(at, now);
            }
        }
        if self.has_succeeded() {
            return self.paid_twice(at, gateway_ref);
        }
        if !order.total_covers(&self.attempts[at].amount) {
            return self.paid_too_much(at, gateway_ref);
        }
        if !self.void_unsent(at, report) {
            return self.two_payments_possible(at, gateway_ref, now);
        }
        self.refunded(at, gateway_ref, order, now)
    }

    /// The return is refunded by this attempt.
    fn refunded(
        &mut self,
        at: usize,
        gateway_ref: &str,
        order: &mut OrderFacts,
        now: OffsetDateTime,
    ) -> SettleStep {
        let late = at + 1 < self.attempts.len() || self.status == Status::RefundFailed;
        let row = &mut self.attempts[at];
        let settled = if order.covers(&row.amount) {
            Settled::Refunded
        } else {
            Settled::RefundedBesideShop
        };
        row.succeed(gateway_ref, now);
        order.refunded_here += row.amount.amount;
        let detail = detail(
            row,
            &[
                ("gateway", json!(row.gateway)),
                ("gateway_ref", json!(gateway_ref)),
            ],
        );
        SettleStep {
            settled,
            change: Some((
                if late {
                    Action::LateSuccess
                } else {
                    Action::Confirm
                },
                detail,
            )),
        }
    }

    pub(super) fn has_succeeded(&self) -> bool {
        let succeeded = |row: &Attempt| row.state == AttemptState::Succeeded;
        self.attempts.iter().any(succeeded)
    }

    /// Another attempt has paid too. One payment has to be taken back, which only people can do.
    fn paid_twice(&mut self, at: usize, gateway_ref: &str) -> SettleStep {
        if !self.park_paid(at, gateway_ref, ParkReason::PaidTwice) {
            return only(Settled::Agreed);
        }
        self.disagreement(at, "succeeded")
    }

    /// With this payment, more than the order's total was refunded. Nothing else may be sent until a person has looked.
    fn paid_too_much(&mut self, at: usize, gateway_ref: &str) -> SettleStep {
        let reason = ParkReason::PaidMoreThanOrderTotal;
        if !self.park_paid(at, gateway_ref, reason) {
            return only(Settled::Agreed);
        }
        // A failed return cannot be parked, but what was paid must be on record.
        if self.status == Status::RefundFailed {
            return self.disagreement(at, "succeeded");
        }
        let detail = detail(&self.attempts[at], &[("reason", json!(reason.as_str()))]);
        SettleStep {
            settled: Settled::Parked,
            change: Some((Action::Park, detail)),
        }
    }

    /// Parks the attempt that paid, and every later attempt that is open; `false` if they were parked already.
    fn park_paid(&mut self, at: usize, gateway_ref: &str, reason: ParkReason) -> bool {
        let before = self.attempts.clone();
        self.attempts[at].park(reason, Some(gateway_ref));
        for later in &mut self.attempts[at + 1..] {
            if later.state.is_open() {
                later.park(ParkReason::EarlierAttemptSucceeded, None);
            }
        }
        self.attempts != before
    }

    /// Closes a later attempt that cannot have been sent; `false` if one may have been.
    fn void_unsent(&mut self, at: usize, report: &OutcomeReport) -> bool {
        let Some(latest) = self.attempts[at + 1..].last_mut() else {
            return true;
        };
        let ours = report.unsent == Some(latest.id.number) && latest.owner == Some(report.reporter);
        // Without `first_sent_at` it was never sent, and its owner's step from claimed to sent will now fail.
        let unsent =
            latest.state == AttemptState::Claimed && (latest.first_sent_at.is_none() || ours);
        match latest.state {
            AttemptState::Declined | AttemptState::Void | AttemptState::Reversed => true,
            _ if unsent => {
                latest.close(AttemptState::Void, None);
                true
            }
            _ => false,
        }
    }

    /// An earlier attempt paid while a later one may have been sent: only a person may settle that.
    fn two_payments_possible(
        &mut self,
        at: usize,
        gateway_ref: &str,
        now: OffsetDateTime,
    ) -> SettleStep {
        self.attempts[at].succeed(gateway_ref, now);
        let earlier = self.attempts[at].id.number;
        let last = self.attempts.len() - 1;
        let latest = &mut self.attempts[last];
        if latest.state.is_open() {
            latest.close(AttemptState::Parked, None);
        }
        let detail = detail(
            latest,
            &[
                (
                    "reason",
                    json!(ParkReason::EarlierAttemptSucceeded.as_str()),
                ),
                ("succeeded_attempt", json!(earlier)),
            ],
        );
        SettleStep {
            settled: Settled::Parked,
            change: Some((Action::Park, detail)),
        }
    }
}
