//! The settings of `outbox-relay`: each one a flag and a variable.

use std::time::Duration;

use clap::Args;
use shared::runtime::db::DbArgs;
use shared::runtime::kafka::KafkaArgs;
use shared::runtime::program::Settings;

#[derive(Debug, Clone, Args)]
// The relay opens one connection per task.
#[command(mut_arg("database_max_connections", |arg| arg.hide(true)))]
pub struct Config {
    #[command(flatten)]
    pub pump: PumpArgs,
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub db: DbArgs,

    /// Milliseconds until a lease ends without renewal, by the database's clock. It is renewed every fifth of this time,
    /// and sooner after a failure. Too low: a short outage of MySQL costs shards. Too high: the shards of a dead relay
    /// wait longer.
    #[arg(long, env = "LEASE_MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1_000..=300_000))]
    pub lease_ms: u64,
}

/// How rows are read and deleted.
#[derive(Debug, Clone, Args)]
pub struct PumpArgs {
    /// Rows per read. Too low: more round trips. Too high: more memory, and a busy shard delays others.
    #[arg(long, env = "BATCH_ROWS", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=5000))]
    pub batch_rows: u16,

    /// KiB of payload after which a read ends. Bounds memory when events are large.
    #[arg(long, env = "BATCH_KIB", default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..=16_384))]
    pub batch_kib: u16,

    /// Milliseconds between reads while events arrive. Too low: more CPU time of MySQL. Too high: more latency.
    #[arg(long, env = "POLL_MIN_MS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub poll_min_ms: u64,

    /// Milliseconds between reads of an idle relay; the pause grows up to this while no events arrive. It is the maximum
    /// delay of the first event after an idle time.
    #[arg(long, env = "POLL_MAX_MS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub poll_max_ms: u64,

    /// Seconds for records in flight to be acknowledged and deleted when this relay stops or hands over a shard. Other
    /// rows stay in the outbox for the next owner. The platform's kill delay must be above DRAIN_SECS plus two fifths of
    /// LEASE_MS plus three seconds.
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
}

impl Settings for Config {
    const NAME: &'static str = "outbox-relay";
    const ABOUT: &'static str =
        "Moves outbox rows to Kafka in order, at least once, deduplicated downstream by event id.";

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.pump.poll_min_ms > self.pump.poll_max_ms {
            problems.push(format!(
                "POLL_MIN_MS ({}) must not exceed POLL_MAX_MS ({})",
                self.pump.poll_min_ms, self.pump.poll_max_ms
            ));
        }
        problems
    }

    fn drain(&self) -> Duration {
        self.pump.drain()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;
    use shared::runtime::program::Cli;

    use super::*;

    /// Settings whose servers do not exist, with further flags.
    pub(crate) fn config(flags: &[&str]) -> Config {
        let required = [
            "outbox-relay",
            "--database-url=mysql://u:p@127.0.0.1:1/d",
            "--kafka-brokers=127.0.0.1:1",
        ];
        let args = required.iter().chain(flags);
        let cli = Cli::<Config>::try_parse_from(args);
        cli.expect("each value alone is good").settings
    }

    #[test]
    fn contradictory_settings_are_reported() {
        let problems = config(&["--poll-min-ms=60", "--poll-max-ms=50"]).problems();
        assert!(
            matches!(problems.as_slice(), [one] if one.contains("POLL_MIN_MS")),
            "{problems:?}"
        );
    }
}
