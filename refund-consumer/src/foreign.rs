//! Attempts of another gateway than ours: they are left alone, so people must learn of them.

use std::collections::BTreeSet;

use prometheus::IntGaugeVec;
use shared::domain::refund::AttemptState;
use strum::IntoEnumIterator;

use crate::store::Foreign;

/// Keeps their gauge and their log lines.
#[derive(Debug)]
pub struct ForeignReport {
    gauge: IntGaugeVec,
    /// The gateways that a line was written about.
    reported: BTreeSet<String>,
}

impl ForeignReport {
    pub fn new(gauge: IntGaugeVec) -> Self {
        Self {
            gauge,
            reported: BTreeSet::new(),
        }
    }

    /// What was counted now: one line when attempts of a gateway appear, and one when they are gone.
    pub fn note(&mut self, foreign: &[Foreign]) {
        for state in AttemptState::iter().filter(|state| state.is_open()) {
            let of_state = foreign.iter().filter(|one| one.state == state.as_str());
            let attempts = of_state.map(|one| one.attempts).sum();
            self.gauge
                .with_label_values(&[state.as_str()])
                .set(attempts);
        }
        let now: BTreeSet<String> = foreign.iter().map(|one| one.gateway.clone()).collect();
        for name in now.difference(&self.reported) {
            let of_gateway = foreign.iter().filter(|one| one.gateway == *name);
            let attempts: i64 = of_gateway.map(|one| one.attempts).sum();
            tracing::warn!(
                gateway.name = name,
                attempts,
                "attempts of another gateway are left alone: only a refund consumer with that GATEWAY_NAME can carry them on"
            );
        }
        for name in self.reported.difference(&now) {
            tracing::info!(
                gateway.name = name,
                "no attempts of that gateway are left alone any more"
            );
        }
        self.reported = now;
    }
}
