//! Asks the gateway about an attempt before anything is sent, and decides what "not found" means.

use shared::domain::refund::{Outcome, OutcomeReport, ParkReason};

use super::{RefundWorker, response};
use crate::attempt::{OwnedAttempt, SendState};
use crate::gateway::{CallFailed, CallKind, RefundGateway};

/// A gateway may need a moment until a refund can be found; this many look-ups, with backoff, allow for it.
const LOOK_UPS_BEFORE_PARKING: i32 = 5;

impl<G: RefundGateway> RefundWorker<G> {
    /// Looks the attempt up by its key; `None` if the gateway does not know it.
    pub(super) async fn look_up(&self, attempt: &OwnedAttempt) -> Option<OutcomeReport> {
        let can = self.gateway.capabilities();
        let outcome = match self.find(&attempt.key, attempt.deadline).await {
            Ok(Some(refund)) => response::looked_up(refund, &attempt.amount, can),
            Ok(None) => return None,
            Err(failed) => self.not_looked_up(failed),
        };
        Some(self.report(attempt, outcome))
    }

    /// "Not found" proves nothing about what may have been sent, so only the same key may go out again.
    pub(super) async fn not_found(&self, attempt: &OwnedAttempt) -> Option<OutcomeReport> {
        match attempt.sent {
            SendState::Fresh
            | SendState::Unsent
            | SendState::MaybeSent {
                may_resend: true, ..
            } => self.send(attempt).await,
            SendState::MaybeSent { .. } | SendState::Pending { .. } | SendState::Paid { .. } => {
                Some(self.stays_unknown(attempt))
            }
        }
    }

    /// It was not found, and is not sent again: after several look-ups only a person can find out.
    pub(super) fn stays_unknown(&self, attempt: &OwnedAttempt) -> OutcomeReport {
        let reason = ParkReason::NotFound;
        let outcome = match attempt.sent {
            SendState::MaybeSent { checks, .. } if checks >= LOOK_UPS_BEFORE_PARKING => {
                Outcome::Park { reason }
            }
            SendState::Fresh
            | SendState::Unsent
            | SendState::MaybeSent { .. }
            | SendState::Pending { .. }
            | SendState::Paid { .. } => Outcome::StillOpen {
                error: reason.as_str(),
                looked_up: true,
                answer: None,
            },
        };
        self.report(attempt, outcome)
    }

    /// Asks for the state of a refund that the gateway has accepted. It is never sent again.
    pub(super) async fn poll(&self, attempt: &OwnedAttempt, gateway_ref: &str) -> OutcomeReport {
        let can = self.gateway.capabilities();
        let outcome = match self.status(attempt, gateway_ref).await {
            Ok(Some(refund)) => response::looked_up(refund, &attempt.amount, can),
            Ok(None) => Outcome::StillOpen {
                error: "pending_not_found",
                looked_up: true,
                answer: None,
            },
            Err(failed) => self.not_looked_up(failed),
        };
        self.report(attempt, outcome)
    }

    /// The outcome of a look-up without a usable response.
    pub(super) fn not_looked_up(&self, failed: CallFailed) -> Outcome {
        let (looked_up, error) = (!matches!(failed, CallFailed::NotSent(_)), failed.as_str());
        match failed {
            CallFailed::Unusable(reason) => Outcome::Park { reason },
            CallFailed::NotSent(_) | CallFailed::Unknown(_) => Outcome::StillOpen {
                error,
                looked_up,
                answer: None,
            },
            CallFailed::NotUnderstood(answer) | CallFailed::Refused { answer, .. } => {
                let reason = ParkReason::NotUnderstood;
                Outcome::StillOpen {
                    error,
                    looked_up,
                    answer: Some(self.unusable(CallKind::LookUp, reason, answer)),
                }
            }
        }
    }
}

/// A look-up without a usable response leaves an attempt unsent that was unsent before.
pub(super) fn still_unsent(attempt: &OwnedAttempt, report: OutcomeReport) -> OutcomeReport {
    match report.outcome {
        Outcome::StillOpen { error, answer, .. } if attempt.sent.is_unsent() => OutcomeReport {
            outcome: Outcome::NotSent {
                error,
                never_sent: true,
                answer,
            },
            ..report
        },
        _ => report,
    }
}
