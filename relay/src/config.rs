//! The settings of `outbox-relay`: each one a flag and a variable.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use shared::runtime::db::DbArgs;
use shared::runtime::kafka::KafkaArgs;
use shared::runtime::ops::OpsArgs;
use shared::runtime::telemetry::LogArgs;

/// Moves outbox rows to Kafka in order, at least once, deduplicated downstream by event id.
#[derive(Debug, Clone, Parser)]
#[command(name = "outbox-relay", version)]
// Its connections are counted by its tasks.
#[command(mut_arg("database_max_connections", |arg| arg.hide(true)))]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub config: Config,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Asks the running relay at OPS_LISTEN whether it is alive; exit 0 or 1.
    Healthcheck,
}

/// Everything that can be set.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    pub pump: PumpArgs,
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub db: DbArgs,
    #[command(flatten)]
    pub ops: OpsArgs,
    #[command(flatten)]
    pub log: LogArgs,

    /// Milliseconds for which a shard stays ours without renewal, by the database's clock; renewed every fifth of
    /// it, and sooner after a failure. Too low loses shards at every hiccup of MySQL, too high leaves a dead relay's
    /// shards waiting.
    #[arg(long, env = "LEASE_MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1_000..=300_000))]
    pub lease_ms: u64,
}

/// How rows are read and deleted.
#[derive(Debug, Clone, Args)]
pub struct PumpArgs {
    /// Rows of one read. Too low costs round trips, too high memory and fairness between shards.
    #[arg(long, env = "BATCH_ROWS", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=5000))]
    pub batch_rows: u16,

    /// KiB of payload after which a read is cut short. Bounds memory when events are large.
    #[arg(long, env = "BATCH_KIB", default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..=16_384))]
    pub batch_kib: u16,

    /// Milliseconds between reads while events arrive. Too low costs CPU of MySQL, too high is latency.
    #[arg(long, env = "POLL_MIN_MS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub poll_min_ms: u64,

    /// Milliseconds between reads after a quiet while (the pause grows to this with the silence): the worst wait of
    /// the first event after it.
    #[arg(long, env = "POLL_MAX_MS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub poll_max_ms: u64,

    /// Seconds in which records in flight may be acknowledged and deleted when this relay stops or gives a shard up;
    /// the rest stays in the outbox for the next owner. Keep it below the platform's kill delay.
    #[arg(long, env = "DRAIN_SECS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub drain_secs: u64,
}

impl PumpArgs {
    pub fn poll_min(&self) -> Duration {
        Duration::from_millis(self.poll_min_ms)
    }

    pub fn poll_max(&self) -> Duration {
        Duration::from_millis(self.poll_max_ms)
    }

    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_secs)
    }
}

impl Config {
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// Everything that is wrong with these settings taken together; empty when they are good.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.pump.poll_min_ms > self.pump.poll_max_ms {
            problems.push(format!(
                "POLL_MIN_MS ({}) must not exceed POLL_MAX_MS ({})",
                self.pump.poll_min_ms, self.pump.poll_max_ms
            ));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_contradict_each_other_are_told() {
        let args = [
            "outbox-relay",
            "--database-url=mysql://h/d",
            "--kafka-brokers=a:9092",
            "--poll-min-ms=60",
            "--poll-max-ms=50",
        ];
        let cli = Cli::try_parse_from(args).expect("each value alone is good");
        let problems = cli.config.problems();
        assert!(
            matches!(problems.as_slice(), [one] if one.contains("POLL_MIN_MS")),
            "{problems:?}"
        );
    }
}
