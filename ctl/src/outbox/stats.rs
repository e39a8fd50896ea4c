//! `returnsctl outbox stats`

use std::process::ExitCode;

use serde::Serialize;

use crate::error::CtlError;
use crate::output;
use crate::session::SessionArgs;
use crate::store::outbox::{self as store, ShardStats};
use crate::text::{counted, span};

const EXAMPLE: &str = "\
A lease that expired belongs to a relay that died or is frozen; another takes the shard within one renewal.
`free` with rows waiting: no relay runs, or the relays that run are about to take it.

Counting reads one narrow index from end to end: about a second with a million rows waiting.";

/// Show each shard: rows waiting, age of the oldest, rows parked, and which relay holds the lease until when.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    shards: Vec<ShardStats>,
    totals: Totals,
}

#[derive(Debug, PartialEq, Serialize)]
struct Totals {
    waiting_rows: i64,
    oldest_age_secs: Option<f64>,
    parked_rows: i64,
    /// Shards under a lease that is still good.
    owned_shards: usize,
    paused_shards: usize,
    /// Relays that hold such a lease.
    relays: usize,
}

pub(super) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    let mut conn = args.session.connect().await?;
    let shards = store::shard_stats(&mut conn).await?;
    let report = Report {
        totals: Totals::of(&shards),
        shards,
    };
    if args.session.json {
        output::print_json(&report)?;
    } else {
        output::print(&report.text())?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Totals {
    fn of(shards: &[ShardStats]) -> Self {
        let ages = shards.iter().filter_map(|shard| shard.oldest_age_secs);
        let owned = |shard: &&ShardStats| shard.lease_left_secs.is_some_and(|left| left > 0.0);
        let mut relays: Vec<&String> = shards
            .iter()
            .filter(owned)
            .filter_map(|shard| shard.owner.as_ref())
            .collect();
        relays.sort_unstable();
        relays.dedup();
        Self {
            waiting_rows: shards.iter().map(|shard| shard.waiting_rows).sum(),
            oldest_age_secs: ages.reduce(f64::max),
            parked_rows: shards.iter().map(|shard| shard.parked_rows).sum(),
            owned_shards: shards.iter().filter(owned).count(),
            paused_shards: shards
                .iter()
                .filter(|shard| shard.paused_secs.is_some())
                .count(),
            relays: relays.len(),
        }
    }
}

impl Report {
    fn text(&self) -> String {
        let mut rows: Vec<[String; 7]> = self.shards.iter().map(cells).collect();
        let totals = &self.totals;
        rows.push([
            "all".to_owned(),
            totals.waiting_rows.to_string(),
            totals.oldest_age_secs.map_or_else(|| "-".to_owned(), span),
            totals.parked_rows.to_string(),
            counted(i64::try_from(totals.relays).unwrap_or(i64::MAX), "relay"),
            String::new(),
            format!(
                "{} owned, {} paused",
                totals.owned_shards, totals.paused_shards
            ),
        ]);
        let head = [
            "shard", "waiting", "oldest", "parked", "owner", "epoch", "lease",
        ];
        let mut text = output::table(head, &rows);
        if totals.parked_rows > 0 {
            text.push_str("\n\nparked rows wait for a person: see `returnsctl outbox parked`");
        }
        text
    }
}

fn cells(shard: &ShardStats) -> [String; 7] {
    [
        shard.shard.to_string(),
        shard.waiting_rows.to_string(),
        shard.oldest_age_secs.map_or_else(|| "-".to_owned(), span),
        shard.parked_rows.to_string(),
        shard.owner.clone().unwrap_or_else(|| "-".to_owned()),
        shard.epoch.to_string(),
        lease(shard),
    ]
}

fn lease(shard: &ShardStats) -> String {
    let left = shard.lease_left_secs.map(|left| {
        if left > 0.0 {
            format!("{} left", span(left))
        } else {
            format!("expired {} ago", span(-left))
        }
    });
    match (shard.paused_secs, left) {
        (None, None) => "free".to_owned(),
        (None, Some(left)) => left,
        (Some(since), None) => format!("paused for {}", span(since)),
        (Some(_), Some(left)) => format!("being given up (paused), {left}"),
    }
}

#[cfg(test)]
mod tests {
    use shared::domain::ids::Shard;

    use super::*;

    fn shard(owner: Option<&str>, left: Option<f64>, paused: Option<f64>) -> ShardStats {
        ShardStats {
            shard: Shard(3),
            waiting_rows: 2,
            oldest_age_secs: Some(1.5),
            parked_rows: 1,
            owner: owner.map(str::to_owned),
            epoch: 7,
            lease_left_secs: left,
            paused_secs: paused,
        }
    }

    #[test]
    fn a_lease_is_told_in_one_phrase() {
        for (owner, left, paused, told) in [
            (None, None, None, "free"),
            (Some("a"), Some(8.0), None, "8.0 s left"),
            (Some("a"), Some(-200.0), None, "expired 3 min ago"),
            (None, None, Some(60.0), "paused for 60 s"),
            (
                Some("a"),
                Some(8.0),
                Some(1.0),
                "being given up (paused), 8.0 s left",
            ),
        ] {
            assert_eq!(lease(&shard(owner, left, paused)), told);
        }
    }

    #[test]
    fn totals_count_only_leases_that_are_good() {
        let shards = [
            shard(Some("a"), Some(8.0), None),
            shard(Some("a"), Some(8.0), Some(1.0)),
            shard(Some("gone"), Some(-1.0), None),
        ];
        let expected = Totals {
            waiting_rows: 6,
            oldest_age_secs: Some(1.5),
            parked_rows: 3,
            owned_shards: 2,
            paused_shards: 1,
            relays: 1,
        };
        assert_eq!(Totals::of(&shards), expected);
    }
}
