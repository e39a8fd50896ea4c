//! The settings of `refund-consumer`: each one a flag and a variable.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use shared::db::DbArgs;
use shared::eligibility::PolicyArgs;
use shared::event::TopicArgs;
use shared::kafka::KafkaArgs;
use shared::ops::OpsArgs;
use shared::telemetry::LogArgs;

/// Pays approved returns back: claims them, calls the refund gateway, settles the outcome.
#[derive(Debug, Clone, Parser)]
#[command(name = "refund-consumer", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub config: Config,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Asks the running consumer at OPS_LISTEN whether it is alive; exit 0 or 1.
    Healthcheck,
}

/// Everything that can be set.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    pub intake: IntakeArgs,
    #[command(flatten)]
    pub pay: PayArgs,
    #[command(flatten)]
    pub gateway: GatewayArgs,
    #[command(flatten)]
    pub reconcile: ReconcileArgs,
    #[command(flatten)]
    pub policy: PolicyArgs,
    #[command(flatten)]
    pub topics: TopicArgs,
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub db: DbArgs,
    #[command(flatten)]
    pub ops: OpsArgs,
    #[command(flatten)]
    pub log: LogArgs,

    /// Seconds after SIGTERM in which calls and settlements in flight may end; the rest is left to other consumers.
    /// Must be below the platform's kill delay. Too low leaves more to be looked up again.
    #[arg(long, env = "CONSUMER_DRAIN_SECS", default_value_t = 15, value_parser = value_parser!(u64).range(1..=300))]
    pub consumer_drain_secs: u64,
}

/// How messages are taken.
#[derive(Debug, Clone, Args)]
pub struct IntakeArgs {
    /// Kafka consumer group, and the name under which the inbox remembers events. Another name takes every message
    /// again (which pays nothing twice).
    #[arg(long, env = "CONSUMER_GROUP", default_value = "refund-consumer", value_parser = parse_group)]
    pub consumer_group: String,

    /// Name of this member in the group, for static membership: a restart within the session timeout then moves no
    /// partitions, but a stop leaves its partitions unread until that timeout. Unset: an ordinary member. Two members
    /// of one name throw each other out.
    #[arg(long, env = "CONSUMER_INSTANCE_ID", value_parser = parse_group)]
    pub consumer_instance_id: Option<String>,

    /// Most messages claimed in one transaction. Too low costs throughput, too high holds row locks for longer.
    #[arg(long, env = "CONSUMER_BATCH_MAX", default_value_t = 100, value_parser = value_parser!(u16).range(1..=200))]
    pub consumer_batch_max: u16,

    /// Days after which the inbox forgets an event. Must be longer than the topic keeps its records: a forgotten
    /// event costs a look at its return, too long a time costs disk.
    #[arg(long, env = "INBOX_RETENTION_DAYS", default_value_t = 14, value_parser = value_parser!(u16).range(1..=3650))]
    pub inbox_retention_days: u16,
}

/// How attempts are carried out.
#[derive(Debug, Clone, Args)]
pub struct PayArgs {
    /// Attempts this process may hold open; above it no messages are taken. Too low starves the gateway, too high
    /// lets attempts wait past their call deadline.
    #[arg(long, env = "MAX_OPEN_ATTEMPTS", default_value_t = 1000, value_parser = value_parser!(u32).range(1..=100_000))]
    pub max_open_attempts: u32,

    /// Gateway calls at the same time. Too low costs throughput, too high runs into the provider's limits.
    #[arg(long, env = "GATEWAY_PARALLEL_CALLS", default_value_t = 64, value_parser = value_parser!(u16).range(1..=1024))]
    pub gateway_parallel_calls: u16,

    /// Milliseconds from the claim to the end of the gateway call; afterwards others take the attempt over. Too low
    /// turns slow answers into unknown ones, too high delays the take-over from a dead consumer.
    #[arg(long, env = "CALL_DEADLINE_MS", default_value_t = 30_000, value_parser = value_parser!(u64).range(100..=600_000))]
    pub call_deadline_ms: u64,

    /// Hours for which the gateway honors an idempotency key. Never set it longer than the provider states: a
    /// later repeat of the call could pay twice. Too short leaves more to a person.
    #[arg(long, env = "IDEMPOTENCY_WINDOW_HOURS", default_value_t = 24, value_parser = value_parser!(u64).range(1..=720))]
    pub idempotency_window_hours: u64,

    /// Milliseconds before an unclear or pending attempt is looked up; doubles with every look-up up to a minute
    /// (unclear) or five (pending). Too low burdens the provider, too high keeps the customer waiting.
    #[arg(long, env = "LOOKUP_BACKOFF_MS", default_value_t = 1_000, value_parser = value_parser!(u64).range(10..=60_000))]
    pub lookup_backoff_ms: u64,
}

/// Who pays the money.
#[derive(Debug, Clone, Args)]
pub struct GatewayArgs {
    /// The payment provider. There is no default: the simulated one must never be chosen by accident.
    #[arg(long, env = "REFUND_GATEWAY", value_enum)]
    pub refund_gateway: GatewayKind,

    /// File in which the simulated gateway keeps what it paid; all consumers must name the same file.
    #[arg(long, env = "SIMULATED_LEDGER")]
    pub simulated_ledger: Option<PathBuf>,

    /// Milliseconds the simulated gateway takes for a call.
    #[arg(long, env = "SIMULATED_DELAY_MS", default_value_t = 0, value_parser = value_parser!(u64).range(0..=600_000))]
    pub simulated_delay_ms: u64,

    /// Whether the simulated gateway waits for the disk after every payment. Only a crash of the whole machine can
    /// lose one without.
    #[arg(long, env = "SIMULATED_FSYNC")]
    pub simulated_fsync: bool,
}

/// The gateways this build knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GatewayKind {
    /// In this process, with a ledger file. For demonstrations: it moves no money.
    Simulated,
}

/// The slow, certain path.
#[derive(Debug, Clone, Args)]
pub struct ReconcileArgs {
    /// Milliseconds between two scans for what is due. Delays approvals and retries by as much; too low costs
    /// idle load (a few indexed reads per scan).
    #[arg(long, env = "RECONCILE_INTERVAL_MS", default_value_t = 1_000, value_parser = value_parser!(u64).range(10..=60_000))]
    pub reconcile_interval_ms: u64,

    /// Seconds a new return is left to its Kafka message before a scan takes it. Too low does the message's work
    /// twice, too high delays returns whose message was lost.
    #[arg(long, env = "INITIATED_GRACE_SECS", default_value_t = 60, value_parser = value_parser!(u32).range(0..=3600))]
    pub initiated_grace_secs: u32,
}

/// Claim, settlement, scan, and one look at earlier attempts at the same time.
const CONNECTIONS_NEEDED: u32 = 4;
/// The call deadline must be far below the key's lifetime, or a repeat could start within it and end after it.
const DEADLINES_PER_WINDOW: u32 = 10;

impl Config {
    /// Everything that is wrong with these settings taken together; empty when they are good.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.db.database_max_connections < CONNECTIONS_NEEDED {
            problems.push(format!(
                "DATABASE_MAX_CONNECTIONS ({}) must be at least {CONNECTIONS_NEEDED}",
                self.db.database_max_connections
            ));
        }
        if self.pay.call_deadline() * DEADLINES_PER_WINDOW > self.pay.window() {
            problems.push(format!(
                "CALL_DEADLINE_MS ({}) must be at most a tenth of IDEMPOTENCY_WINDOW_HOURS ({})",
                self.pay.call_deadline_ms, self.pay.idempotency_window_hours
            ));
        }
        if self.gateway.refund_gateway == GatewayKind::Simulated
            && self.gateway.simulated_ledger.is_none()
        {
            problems.push("SIMULATED_LEDGER is required with REFUND_GATEWAY=simulated".to_owned());
        }
        for (name, topic) in [
            ("TOPIC_RETURNS", &self.topics.topic_returns),
            ("TOPIC_STATUS", &self.topics.topic_status),
        ] {
            if topic.is_empty() {
                problems.push(format!("{name} is empty"));
            }
        }
        problems
    }

    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.consumer_drain_secs)
    }
}

impl PayArgs {
    pub fn call_deadline(&self) -> Duration {
        Duration::from_millis(self.call_deadline_ms)
    }

    pub fn window(&self) -> Duration {
        Duration::from_secs(self.idempotency_window_hours * 3600)
    }
}

fn parse_group(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len());
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if fits && plain {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 64 of A-Z a-z 0-9 . _ -".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [&str; 9] = [
        "refund-consumer",
        "--database-url=mysql://root@localhost/returns",
        "--kafka-brokers=localhost:9092",
        "--refund-gateway=simulated",
        "--simulated-ledger=/tmp/ledger",
        "--topic-returns=a",
        "--topic-status=b",
        "--database-max-connections=16",
        "--call-deadline-ms=30000",
    ];

    fn problems(extra: &[&str]) -> Vec<String> {
        let args = GOOD
            .iter()
            .filter(|arg| {
                let name = arg.split('=').next().unwrap_or_default();
                !extra.iter().any(|other| other.starts_with(name))
            })
            .chain(extra);
        match Cli::try_parse_from(args) {
            Ok(cli) => cli.config.problems(),
            Err(error) => vec![error.to_string()],
        }
    }

    #[test]
    fn good_settings_have_no_problems() {
        assert_eq!(problems(&[]), Vec::<String>::new());
    }

    #[test]
    fn relations_are_all_told() {
        let told = problems(&[
            "--database-max-connections=3",
            "--call-deadline-ms=600000",
            "--idempotency-window-hours=1",
            "--topic-returns=",
        ]);
        assert_eq!(told.len(), 3, "{told:?}");
    }

    #[test]
    fn the_simulated_gateway_needs_its_ledger() {
        let without: Vec<&str> = GOOD
            .into_iter()
            .filter(|arg| !arg.starts_with("--simulated-ledger"))
            .collect();
        let config = Cli::try_parse_from(without).expect("parses").config;
        assert_eq!(config.problems().len(), 1);
    }

    #[test]
    fn a_group_is_what_kafka_and_the_inbox_can_hold() {
        assert!(parse_group("refund-consumer.2").is_ok());
        for bad in ["", "a b", "ä", &"x".repeat(65)] {
            assert!(parse_group(bad).is_err(), "{bad}");
        }
    }
}
