//! The errors that the programs counted while this command looked.

use std::time::Instant;

use serde::{Serialize, Serializer};

use super::Program;

/// More would not be read.
const KEPT: usize = 50;

/// A counter of errors that rose. The names are those of `--json`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SeenError {
    pub(crate) program: &'static str,
    pub(crate) address: String,
    pub(crate) series: String,
    /// By how much it rose last.
    pub(crate) count: f64,
    #[serde(rename = "age_secs", serialize_with = "age")]
    pub(crate) seen_at: Instant,
}

fn age<S: Serializer>(seen_at: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
    seen_at.elapsed().as_secs_f64().serialize(serializer)
}

/// The errors between two readings, before those that are known already; one entry for each counter.
pub(super) fn seen(older: &[Program], newer: &[Program], known: Vec<SeenError>) -> Vec<SeenError> {
    let mut all: Vec<SeenError> = newer
        .iter()
        .filter_map(|program| {
            let mut older = older.iter();
            let before = older.find(|one| one.address == program.address)?;
            Some(risen(before, program))
        })
        .flatten()
        .collect();
    for one in known {
        let again = |new: &SeenError| new.address == one.address && new.series == one.series;
        if !all.iter().any(again) {
            all.push(one);
        }
    }
    all.truncate(KEPT);
    all
}

fn risen(older: &Program, newer: &Program) -> Vec<SeenError> {
    let (Some(before), Some(now)) = (&older.metrics.value, &newer.metrics.value) else {
        return Vec::new();
    };
    let rise = |(series, count): (&String, &f64)| {
        let before = before.errors.get(series).copied().unwrap_or(0.0);
        // A program that was started again counts from 0.
        let rise = if *count < before {
            *count
        } else {
            count - before
        };
        (rise > 0.0).then(|| SeenError {
            program: now.program,
            address: newer.address.clone(),
            series: series.clone(),
            count: rise,
            seen_at: newer.metrics.read_at,
        })
    };
    now.errors.iter().filter_map(rise).collect()
}
