//! The relay: how fast it drains a backlog, the cost of deleted rows that cannot be purged, the time of an event from its
//! commit to a Kafka consumer, and the cost of an idle relay. The relays run with their default settings.

pub(crate) mod drain;
mod idle;
mod latency;
mod reader;
mod snapshot;
pub(crate) mod stage;
pub(crate) mod usage;

use crate::process::Servers;

#[derive(Debug, clap::Args)]
pub(crate) struct RelayArgs {
    /// What to measure.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Part::Drain, Part::Snapshot, Part::Latency, Part::Idle])]
    parts: Vec<Part>,

    /// Runs of each kind, in turn; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99))]
    rounds: u8,

    /// Rows of the backlog.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    rows: u64,

    /// Backlogs to drain, as SHARDSxRELAYS: shards that have rows (of 16), and number of relays.
    #[arg(long, value_delimiter = ',', default_values_t = ["16x1", "16x2", "4x1", "1x1"].map(str::to_owned))]
    drains: Vec<String>,

    /// Events per second of the latency runs.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000])]
    rates: Vec<u32>,

    /// Events per transaction of a latency run, each of another return.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    per_transaction: u32,

    /// Seconds of each latency and idle run, after a warm-up of 30 and of 2.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// How fast a backlog is drained.
    Drain,
    /// Reading, while the rows of a drained backlog cannot be purged.
    Snapshot,
    /// From COMMIT to a Kafka consumer.
    Latency,
    /// The cost of an idle relay.
    Idle,
}

/// Measures and prints the tables; `false` if an event was lost or out of order.
pub(crate) async fn run(args: &RelayArgs, servers: &Servers) -> anyhow::Result<bool> {
    let mut sound = true;
    for part in &args.parts {
        sound &= match part {
            Part::Drain => drain::run(args, servers).await?,
            Part::Snapshot => snapshot::run(args, servers).await?,
            Part::Latency => latency::run(args, servers).await?,
            Part::Idle => idle::run(args, servers).await?,
        };
    }
    Ok(sound)
}
