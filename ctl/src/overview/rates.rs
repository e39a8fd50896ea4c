//! How much each stage does in a second, from two readings of the programs' counters.

use serde::Serialize;

use super::Program;
use super::metrics::Stages;

/// `None` if no program with this stage was read twice. The names are those of `--json`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Rates {
    pub(crate) filed_per_sec: Option<f64>,
    pub(crate) published_per_sec: Option<f64>,
    pub(crate) claimed_per_sec: Option<f64>,
    pub(crate) refunded_per_sec: Option<f64>,
}

impl Rates {
    pub(super) fn between(older: &[Program], newer: &[Program]) -> Self {
        let of = |stage: fn(&Stages) -> Option<f64>| {
            let rates = newer.iter().filter_map(|program| {
                let mut older = older.iter();
                let before = older.find(|one| one.address == program.address)?;
                rate(before, program, stage)
            });
            rates.reduce(|a, b| a + b)
        };
        Self {
            filed_per_sec: of(|stages| stages.filed),
            published_per_sec: of(|stages| stages.published),
            claimed_per_sec: of(|stages| stages.claimed),
            refunded_per_sec: of(|stages| stages.refunded),
        }
    }
}

fn rate(older: &Program, newer: &Program, stage: fn(&Stages) -> Option<f64>) -> Option<f64> {
    let (before, now) = (&older.metrics, &newer.metrics);
    let secs = now.read_at.saturating_duration_since(before.read_at);
    let secs = secs.as_secs_f64();
    let before = stage(&before.value.as_ref()?.stages)?;
    let now = stage(&now.value.as_ref()?.stages)?;
    // A program that was started again counts from 0.
    let done = if now < before { now } else { now - before };
    (secs > 0.0).then(|| done / secs)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::overview::Part;
    use crate::overview::metrics::Scrape;

    fn relay(address: &str, published: f64, read_at: Instant) -> Program {
        let stages = Stages {
            published: Some(published),
            ..Stages::default()
        };
        Program {
            address: address.to_owned(),
            metrics: Part {
                value: Some(Scrape {
                    stages,
                    ..Scrape::default()
                }),
                trouble: None,
                read_at,
            },
        }
    }

    #[test]
    fn a_rate_is_the_sum_over_the_programs_and_a_restart_makes_it_not_negative() {
        let (first, second) = (Instant::now(), Instant::now() + Duration::from_secs(2));
        let older = [relay("a", 10.0, first), relay("b", 50.0, first)];
        let newer = [
            relay("a", 30.0, second),
            relay("b", 4.0, second),
            relay("new", 9.0, second),
        ];
        let rates = Rates::between(&older, &newer);
        let published = rates.published_per_sec.expect("a rate");
        assert!((published - 12.0).abs() < 0.01, "{published}");
        assert_eq!(rates.filed_per_sec, None);
    }
}
