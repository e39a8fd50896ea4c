//! Before an attempt is sent: does its order still cover it? The shop may have refunded the order since the claim, for example
//! by hand while the provider was away.

use std::time::Duration;

use shared::domain::eligibility::OrderFacts;
use shared::domain::refund::{Outcome, OutcomeReport, ParkReason};

use super::RefundWorker;
use crate::attempt::{OwnedAttempt, SendState};
use crate::error::Error;
use crate::gateway::RefundGateway;
use crate::store;

/// While it waits it holds a call permit.
const DEADLINE: Duration = Duration::from_secs(2);
/// For so long after the claim what it has read of the order counts. A busy consumer sends most attempts within this time,
/// and a person needs longer to pay by hand. Without it an attempt could wait for half of `CALL_DEADLINE_MS`.
const CLAIM_COUNTS: Duration = Duration::from_secs(2);

impl<G: RefundGateway> RefundWorker<G> {
    /// `None` if the attempt may be sent.
    pub(super) async fn not_covered(&self, attempt: &OwnedAttempt) -> Option<OutcomeReport> {
        let age = self.call_deadline.saturating_sub(attempt.deadline.left());
        if attempt.sent == SendState::Fresh && age < CLAIM_COUNTS {
            return None;
        }
        let Ok(Some(order)) = self.read_order(attempt).await else {
            return Some(self.not_sent(attempt, "database"));
        };
        if order.covers(&attempt.amount) {
            return None;
        }
        if attempt.sent.is_unsent() {
            let reason = ParkReason::NotCovered;
            return Some(self.report(attempt, Outcome::Park { reason }));
        }
        // The shop may have written the order down because of this very payment, which a later look-up then finds.
        Some(self.stays_unknown(attempt))
    }

    async fn read_order(&self, attempt: &OwnedAttempt) -> Result<Option<OrderFacts>, Error> {
        let (id, owner) = (attempt.id, self.owner);
        let read = self.db.run("read_order", DEADLINE, move |conn| {
            Box::pin(store::read_order(conn, id, owner))
        });
        read.await
    }
}
