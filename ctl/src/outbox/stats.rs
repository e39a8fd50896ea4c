//! `returnsctl outbox stats`

use std::process::ExitCode;

use serde::Serialize;

use crate::error::CtlError;
use crate::layout::{Row, shorten, table};
use crate::output;
use crate::session::{READ_DEADLINE, SessionArgs};
use crate::store::shards::{ShardCounts, ShardHead, shard_counts, shard_heads};
use crate::text::{counted, or_dash, span};

const HELP: &str = "\
A lease has expired if its relay died or is frozen; another relay takes the shard within one renewal. `free` with \
waiting rows: no relay runs, or one is about to take the shard.

The command counts the entries of a narrow index: about a second for a million waiting rows.";

/// Show each shard: waiting rows, age of the oldest, parked rows, and the relay that holds the lease.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Debug, Clone, Serialize)]
struct ShardStats {
    #[serde(flatten)]
    head: ShardHead,
    waiting_rows: i64,
    parked_rows: i64,
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
    /// Shards under a lease that has not expired.
    owned_shards: usize,
    paused_shards: usize,
    /// Relays that hold such a lease.
    relays: usize,
}

/// Enough to tell relays apart; `--json` has the whole name.
const OWNER_SHOWN: usize = 16;

pub(super) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let session = args.session.connect().await?;
    let heads = session.read("shard_heads", |conn| Box::pin(shard_heads(conn)));
    let heads = heads.await?;
    let counts = session.read("shard_counts", |conn| {
        Box::pin(shard_counts(conn, READ_DEADLINE))
    });
    let shards = heads.into_iter().zip(counts.await?).map(ShardStats::from);
    let shards: Vec<ShardStats> = shards.collect();
    let report = Report {
        totals: Totals::of(&shards),
        shards,
    };
    output::report(&report, args.session.json)?;
    Ok(ExitCode::SUCCESS)
}

impl From<(ShardHead, ShardCounts)> for ShardStats {
    fn from((head, counts): (ShardHead, ShardCounts)) -> Self {
        Self {
            head,
            waiting_rows: counts.waiting_rows,
            parked_rows: counts.parked_rows,
        }
    }
}

impl Totals {
    fn of(shards: &[ShardStats]) -> Self {
        let ages = shards.iter().filter_map(|shard| shard.head.oldest_age_secs);
        let mut relays: Vec<&str> = shards
            .iter()
            .filter_map(|shard| shard.head.living_owner())
            .collect();
        let owned_shards = relays.len();
        relays.sort_unstable();
        relays.dedup();
        Self {
            waiting_rows: shards.iter().map(|shard| shard.waiting_rows).sum(),
            oldest_age_secs: ages.reduce(f64::max),
            parked_rows: shards.iter().map(|shard| shard.parked_rows).sum(),
            owned_shards,
            paused_shards: shards.iter().filter(|shard| shard.head.is_paused()).count(),
            relays: relays.len(),
        }
    }
}

impl output::Report for Report {
    fn text(&self) -> String {
        let mut rows: Vec<Row<7>> = self.shards.iter().map(row).collect();
        let totals = &self.totals;
        rows.push(Row::from([
            "all".to_owned(),
            totals.waiting_rows.to_string(),
            or_dash(totals.oldest_age_secs.map(span)),
            totals.parked_rows.to_string(),
            counted(totals.relays, "relay"),
            String::new(),
            format!(
                "{} owned, {} paused",
                totals.owned_shards, totals.paused_shards
            ),
        ]));
        let head = [
            "shard", "waiting", "oldest", "parked", "owner", "epoch", "lease",
        ];
        let mut text = table(head, &rows);
        if totals.parked_rows > 0 {
            text.push_str("\n\nParked rows wait for a person: see `returnsctl outbox parked`.");
        }
        text
    }
}

fn row(shard: &ShardStats) -> Row<7> {
    let head = &shard.head;
    Row::from([
        head.shard.to_string(),
        shard.waiting_rows.to_string(),
        or_dash(head.oldest_age_secs.map(span)),
        shard.parked_rows.to_string(),
        or_dash(head.living_owner().map(|owner| shorten(owner, OWNER_SHOWN))),
        head.epoch.to_string(),
        lease(head),
    ])
}

fn lease(head: &ShardHead) -> String {
    let left = head.lease_left_secs.map(|left| {
        if left > 0.0 {
            format!("{} left", span(left))
        } else {
            format!("expired {} ago", span(-left))
        }
    });
    match (head.paused_secs, left) {
        (None, None) => "free".to_owned(),
        (None, Some(left)) => left,
        (Some(since), None) => format!("paused {} ago", span(since)),
        (Some(_), Some(left)) => format!("pausing, {left}"),
    }
}

#[cfg(test)]
mod tests {
    use shared::domain::ids::Shard;

    use super::*;

    fn shard(owner: Option<&str>, left: Option<f64>, paused: Option<f64>) -> ShardStats {
        let head = ShardHead {
            shard: Shard(3),
            owner: owner.map(str::to_owned),
            epoch: 7,
            lease_left_secs: left,
            paused_secs: paused,
            oldest_age_secs: Some(1.5),
            oldest_topic: Some("order.returns".to_owned()),
        };
        ShardStats {
            head,
            waiting_rows: 2,
            parked_rows: 1,
        }
    }

    #[test]
    fn a_lease_is_described_in_one_phrase() {
        for (owner, left, paused, phrase) in [
            (None, None, None, "free"),
            (Some("a"), Some(8.0), None, "8.0 s left"),
            (Some("a"), Some(-200.0), None, "expired 3 min ago"),
            (None, None, Some(60.0), "paused 60 s ago"),
            (Some("a"), Some(8.0), Some(1.0), "pausing, 8.0 s left"),
        ] {
            assert_eq!(lease(&shard(owner, left, paused).head), phrase);
        }
    }

    #[test]
    fn an_expired_lease_has_no_owner() {
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
        let Row { cells, .. } = row(&shards[2]);
        assert_eq!(
            (cells[4].as_str(), cells[6].as_str()),
            ("-", "expired 1.0 s ago")
        );
    }

    #[test]
    fn wide_values_fit() {
        let owner = "relay-production-7f9c5d8b64-xk2lp-000123-0198f1c2a3b4";
        let mut wide = shard(Some(owner), Some(3_599.0), Some(1.0));
        (wide.waiting_rows, wide.parked_rows) = (9_999_999, 9_999_999);
        (wide.head.epoch, wide.head.oldest_age_secs) = (1_234_567, Some(7_000.0));
        let mut expired = wide.clone();
        expired.head.lease_left_secs = Some(-7_000.0);
        let shards = vec![wide, expired];
        output::expect_fits(&Report {
            totals: Totals::of(&shards),
            shards,
        });
    }
}
