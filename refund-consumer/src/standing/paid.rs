//! What it means that the provider has paid: the return is refunded, unless somebody has paid before or may have.

use serde_json::json;
use shared::domain::eligibility::OrderFacts;
use shared::domain::status::{Action, Status};
use time::OffsetDateTime;

use super::{Judgement, Standing, detail, only};
use crate::attempt::{AttemptState, Recorded};
use crate::verdict::{Finding, Settled};

impl Standing {
    pub(super) fn succeeded(
        &mut self,
        at: usize,
        finding: &Finding,
        gateway_ref: &str,
        order: &mut OrderFacts,
        now: OffsetDateTime,
    ) -> Judgement {
        let row = &mut self.attempts[at];
        if row.state == AttemptState::Succeeded {
            // Marked paid by people who had no reference: they may mean another payment.
            let agrees = row.gateway_ref.as_deref() == Some(gateway_ref);
            row.gateway_ref
                .get_or_insert_with(|| gateway_ref.to_owned());
            return self.compare(at, agrees, "succeeded");
        }
        match self.status {
            Status::RefundPending | Status::RefundFailed => {}
            Status::Refunded => {
                // Paid twice, or marked paid by people who were right. A person must look either way.
                self.attempts[at].close(AttemptState::Succeeded, Some(gateway_ref));
                return self.disagreement(at, "succeeded");
            }
            Status::Initiated | Status::Approved | Status::Rejected | Status::Cancelled => {
                return self.stuck(at, now);
            }
        }
        if self.has_succeeded() {
            return self.paid_twice(at, gateway_ref);
        }
        if !order.covers(&self.attempts[at].amount) {
            return self.paid_too_much(at, gateway_ref);
        }
        if !self.void_unsent(at, finding) {
            return self.two_payments_possible(at, gateway_ref);
        }
        let late = at + 1 < self.attempts.len() || self.status == Status::RefundFailed;
        let row = &mut self.attempts[at];
        row.close(AttemptState::Succeeded, Some(gateway_ref));
        order.refunded_amount.amount += row.amount.amount;
        let detail = detail(
            row,
            &[
                ("gateway", json!(row.gateway)),
                ("gateway_ref", json!(gateway_ref)),
            ],
        );
        Judgement {
            settled: Settled::Refunded,
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

    fn has_succeeded(&self) -> bool {
        let succeeded = |row: &Recorded| row.state == AttemptState::Succeeded;
        self.attempts.iter().any(succeeded)
    }

    /// Another attempt has paid too. One payment has to be taken back, which only people can do.
    fn paid_twice(&mut self, at: usize, gateway_ref: &str) -> Judgement {
        if !self.park_paid(at, gateway_ref, "paid_twice") {
            return only(Settled::Agreed);
        }
        self.disagreement(at, "succeeded")
    }

    /// More than is left of the order. Nothing else may be sent until a person has looked.
    fn paid_too_much(&mut self, at: usize, gateway_ref: &str) -> Judgement {
        const REASON: &str = "paid_more_than_order_total";
        if !self.park_paid(at, gateway_ref, REASON) {
            return only(Settled::Agreed);
        }
        // A failed return cannot be parked, but what was paid must be on record.
        if self.status == Status::RefundFailed {
            return self.disagreement(at, "succeeded");
        }
        let detail = detail(&self.attempts[at], &[("reason", json!(REASON))]);
        Judgement {
            settled: Settled::Parked,
            change: Some((Action::Park, detail)),
        }
    }

    /// Parks what was paid, and every later attempt that is open; `false` if all that was so already.
    fn park_paid(&mut self, at: usize, gateway_ref: &str, reason: &str) -> bool {
        let before = self.attempts.clone();
        let paid = &mut self.attempts[at];
        paid.close(AttemptState::Parked, Some(gateway_ref));
        paid.last_error = Some(reason.to_owned());
        for later in &mut self.attempts[at + 1..] {
            if later.state.is_open() {
                later.close(AttemptState::Parked, None);
                later.last_error = Some("earlier_attempt_succeeded".to_owned());
            }
        }
        self.attempts != before
    }

    /// Closes a later attempt that cannot have been sent; `false` if one may have been.
    fn void_unsent(&mut self, at: usize, finding: &Finding) -> bool {
        let Some(latest) = self.attempts[at + 1..].last_mut() else {
            return true;
        };
        let ours = finding.unsent == Some(latest.id.number) && latest.owner == Some(finding.finder);
        // Without `first_sent_at` it was never sent, and its owner's claimed → sent will now fail.
        let unsent =
            latest.state == AttemptState::Claimed && (latest.first_sent_at.is_none() || ours);
        match latest.state {
            AttemptState::Declined | AttemptState::Void => true,
            _ if unsent => {
                latest.close(AttemptState::Void, None);
                true
            }
            _ => false,
        }
    }

    /// An earlier attempt paid while a later one may have been sent: nobody may settle that but a person.
    fn two_payments_possible(&mut self, at: usize, gateway_ref: &str) -> Judgement {
        self.attempts[at].close(AttemptState::Succeeded, Some(gateway_ref));
        let earlier = self.attempts[at].id.number;
        let last = self.attempts.len() - 1;
        let latest = &mut self.attempts[last];
        if latest.state.is_open() {
            latest.close(AttemptState::Parked, None);
        }
        let detail = detail(
            latest,
            &[
                ("reason", json!("earlier_attempt_succeeded")),
                ("succeeded_attempt", json!(earlier)),
            ],
        );
        Judgement {
            settled: Settled::Parked,
            change: Some((Action::Park, detail)),
        }
    }
}
