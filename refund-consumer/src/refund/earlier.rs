//! Before a later attempt is sent: has an earlier one paid after all?

use std::time::Duration;

use shared::domain::refund::{
    Attempt, AttemptId, AttemptState, Outcome, OutcomeReport, ParkReason,
};

use super::{RefundWorker, response};
use crate::attempt::OwnedAttempt;
use crate::error::Error;
use crate::gateway::{Answer, CallFailed, CallKind, RefundGateway};
use crate::store;

/// While it waits it holds a call permit.
const DEADLINE: Duration = Duration::from_secs(2);

impl<G: RefundGateway> RefundWorker<G> {
    /// Looks every earlier attempt up, declined ones too: one may have paid after all. `None` if none has.
    pub(super) async fn look_up_earlier(&self, attempt: &OwnedAttempt) -> Option<OutcomeReport> {
        if attempt.id.number == 1 {
            return None;
        }
        // It is not sent now. If it may have been sent before, it was looked up just now.
        let not_now = |error| Some(self.not_sent(attempt, error));
        let park = |reason| Some(self.report(attempt, Outcome::Park { reason }));
        let Ok(Some(earlier)) = self.read_earlier(attempt.id).await else {
            return not_now("database");
        };
        let stated = last_marked_not_paid(&earlier);
        for earlier in earlier {
            if earlier.belongs_to_another(self.gateway.name().as_str()) {
                if earlier.id.number <= stated {
                    continue;
                }
                return park(ParkReason::EarlierAttemptElsewhere);
            }
            let can = self.gateway.capabilities();
            let outcome = match self.find(&earlier.key, attempt.deadline).await {
                Ok(Some(refund)) => response::looked_up(refund, &earlier.amount, can),
                Ok(None) => continue,
                Err(CallFailed::Unusable(_)) => return park(ParkReason::EarlierAttemptMismatched),
                Err(CallFailed::NotUnderstood(answer)) => {
                    return Some(self.earlier_not_understood(attempt, answer));
                }
                Err(_) => return not_now("earlier_not_looked_up"),
            };
            match outcome {
                Outcome::Succeeded { gateway_ref }
                    if earlier.state == AttemptState::Reversed
                        && earlier.gateway_ref.as_ref() == Some(&gateway_ref) =>
                {
                    if earlier.id.number > stated {
                        return park(ParkReason::ReversalWithdrawn);
                    }
                }
                Outcome::Succeeded { .. } => {
                    return Some(OutcomeReport {
                        attempt: earlier.id,
                        unsent: attempt.sent.is_unsent().then_some(attempt.id.number),
                        ..self.report(attempt, outcome)
                    });
                }
                Outcome::Declined { .. } => {}
                Outcome::Park { .. } => return park(ParkReason::EarlierAttemptMismatched),
                _ => return not_now("earlier_attempt_pending"),
            }
        }
        None
    }

    /// After several such answers it is parked, unsent.
    fn earlier_not_understood(&self, attempt: &OwnedAttempt, answer: Answer) -> OutcomeReport {
        let reason = ParkReason::EarlierAttemptMismatched;
        let outcome = Outcome::NotSent {
            error: "earlier_not_looked_up",
            never_sent: attempt.sent.is_unsent(),
            answer: Some(self.unusable(CallKind::LookUp, reason, answer)),
        };
        self.report(attempt, outcome)
    }

    async fn read_earlier(&self, id: AttemptId) -> Result<Option<Vec<Attempt>>, Error> {
        let owner = self.owner;
        let read = self.db.run("read_earlier", DEADLINE, move |conn| {
            Box::pin(store::read_earlier(conn, id, owner))
        });
        read.await
    }
}

/// The last attempt that people have marked as not paid; 0 if there is none. They state it about the return, so also about
/// the attempts before it that this gateway cannot look up.
fn last_marked_not_paid(attempts: &[Attempt]) -> i32 {
    let marked = attempts.iter().filter(|one| one.is_marked_not_paid());
    marked.map(|one| one.id.number).max().unwrap_or(0)
}
