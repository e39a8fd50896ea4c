//! Before a later attempt is sent: has an earlier one paid after all?

use super::Cashier;
use super::answer;
use crate::attempt::{Attempt, AttemptId};
use crate::error::Error;
use crate::gateway::{CallFailed, RefundGateway};
use crate::store;
use crate::verdict::{Finding, Verdict};

impl<G: RefundGateway> Cashier<G> {
    /// Looks every earlier attempt up, declined ones too: one may have paid after all. `None` if none has.
    pub(super) async fn earlier_attempts(&self, attempt: &Attempt) -> Option<Finding> {
        if attempt.id.number == 1 {
            return None;
        }
        // It is not sent now. Where it may have been sent before, it was looked up just now.
        let still_open = |error| Some(self.not_sent(attempt, error));
        let park = |reason| Some(self.finding(attempt, Verdict::Park { reason }));
        let Ok(earlier) = self.read_earlier(attempt.id).await else {
            return still_open("database");
        };
        for earlier in earlier {
            if earlier
                .gateway
                .as_deref()
                .is_some_and(|name| name != self.gateway.name())
            {
                return park("earlier_attempt_elsewhere");
            }
            let verdict = match self.find(&earlier.key, attempt.deadline).await {
                Ok(Some(answer)) => {
                    answer::found(answer, &earlier.amount, self.gateway.capabilities())
                }
                Ok(None) => continue,
                Err(CallFailed::Unusable(_)) => return park("earlier_attempt_mismatched"),
                Err(_) => return still_open("earlier_not_looked_up"),
            };
            match verdict {
                Verdict::Succeeded { .. } => {
                    return Some(Finding {
                        attempt: earlier.id,
                        unsent: attempt.known.is_unsent().then_some(attempt.id.number),
                        verdict,
                        finder: self.owner,
                        taken_until: attempt.taken_until,
                    });
                }
                Verdict::Declined { .. } => {}
                Verdict::Park { .. } => return park("earlier_attempt_mismatched"),
                _ => return still_open("earlier_attempt_pending"),
            }
        }
        None
    }

    async fn read_earlier(&self, id: AttemptId) -> Result<Vec<store::Earlier>, Error> {
        let mut conn = self.pool.acquire().await?;
        store::read_earlier(&mut conn, id).await
    }
}
