//! What traces cost: each stage of the way of returns with all, a tenth and none of them traced, in turn within one run; and
//! a collector that goes away under load.

mod away;
mod cost;
mod sink;
mod stages;

use crate::process::Servers;

#[derive(Debug, clap::Args)]
pub(crate) struct TraceArguments {
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Part::Cost, Part::Away])]
    parts: Vec<Part>,

    /// Connections that file.
    #[arg(long, default_value_t = 64)]
    connections: usize,

    /// Seconds of filing that each run measures, after one second of warm-up. What was filed is then sent and refunded.
    #[arg(long, default_value_t = 15)]
    seconds: u64,

    /// Runs of each kind, in turn, so that a slow minute of the machine affects all kinds alike; the median counts.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u8).range(1..=99))]
    rounds: u8,

    /// Seconds for which the collector is away.
    #[arg(long, default_value_t = 60)]
    away_seconds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Cost,
    Away,
}

/// Measures and prints the tables; `false` if a response was wrong or a row is missing.
pub(crate) async fn run(args: &TraceArguments, servers: &Servers) -> anyhow::Result<bool> {
    let mut sound = true;
    for part in &args.parts {
        sound &= match part {
            Part::Cost => cost::run(args, servers).await?,
            Part::Away => away::run(args, servers).await?,
        };
    }
    Ok(sound)
}
