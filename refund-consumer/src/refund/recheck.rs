//! Is a payment still a payment? Asked by the provider's own reference, which it keeps for longer than a key.

use shared::domain::refund::{Outcome, OutcomeReport, ParkReason};

use super::{RefundWorker, response};
use crate::attempt::OwnedAttempt;
use crate::gateway::RefundGateway;

impl<G: RefundGateway> RefundWorker<G> {
    pub(super) async fn recheck(&self, attempt: &OwnedAttempt, gateway_ref: &str) -> OutcomeReport {
        let outcome = match self.status(attempt, gateway_ref).await {
            Ok(Some(refund)) => {
                match response::looked_up(refund, &attempt.amount, self.gateway.capabilities()) {
                    Outcome::Declined { code, .. } => Outcome::Reversed {
                        code,
                        order_has_open_return: false,
                    },
                    outcome => outcome,
                }
            }
            Ok(None) => Outcome::Park {
                reason: ParkReason::NotFound,
            },
            Err(failed) => match self.not_looked_up(failed) {
                // Refused or not understood, while other calls are answered: the next time it would be the same.
                Outcome::StillOpen {
                    answer: Some(answer),
                    ..
                } if answer.counts => Outcome::Park {
                    reason: answer.reason,
                },
                outcome => outcome,
            },
        };
        self.report(attempt, outcome)
    }
}
