//! The settings of `refund-consumer`: each one a flag and a variable.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, value_parser};
use shared::domain::event::TopicArgs;
use shared::runtime::db::DbArgs;
use shared::runtime::kafka::KafkaArgs;
use shared::runtime::program::Settings;

use crate::gateway::GatewayName;
use crate::gateway::http::HttpArgs;

/// Our name as a program, as an actor and towards Kafka.
pub const PROGRAM: &str = "refund-consumer";

/// Every setting of this program.
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
    pub topics: TopicArgs,
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub db: DbArgs,

    /// Seconds after SIGTERM in which calls and settlements in flight may end; other consumers take over the rest. Must
    /// be below the platform's kill delay. Too low: more attempts are looked up again.
    #[arg(long, env = "CONSUMER_DRAIN_SECS", default_value_t = 15, value_parser = value_parser!(u64).range(1..=300))]
    pub consumer_drain_secs: u64,
}

/// The Kafka consumer.
#[derive(Debug, Clone, Args)]
pub struct IntakeArgs {
    /// Kafka consumer group, and the name under which the inbox remembers events. A new name reads every message again,
    /// which pays nothing twice.
    #[arg(long, env = "CONSUMER_GROUP", default_value = "refund-consumer", value_parser = parse_group)]
    pub consumer_group: String,

    /// Name of this member in the group, for static membership: a restart within the session timeout moves no
    /// partitions, but after a stop its partitions stay unread until that timeout. Unset: an ordinary member. Of two
    /// members with one name the one that joined first is evicted; it reports that, and ends after 30 to 60 seconds.
    #[arg(long, env = "CONSUMER_INSTANCE_ID", value_parser = parse_group)]
    pub consumer_instance_id: Option<String>,

    /// Most messages claimed in one transaction. Too low: less throughput. Too high: row locks are held for longer (250
    /// messages take about 0.1 s on two cores). At most three quarters of `MAX_OPEN_ATTEMPTS` are used.
    #[arg(long, env = "CONSUMER_BATCH_MAX", default_value_t = 250, value_parser = value_parser!(u16).range(1..=1000))]
    pub consumer_batch_max: u16,

    /// Days after which the inbox forgets an event. Must be longer than the topic's retention: a record of a forgotten
    /// event costs a look at its return. Too high: more disk.
    #[arg(long, env = "INBOX_RETENTION_DAYS", default_value_t = 14, value_parser = value_parser!(u16).range(1..=3650))]
    pub inbox_retention_days: u16,
}

/// Refund attempts.
#[derive(Debug, Clone, Args)]
pub struct PayArgs {
    /// Most attempts that this process holds open. Messages are taken up to three quarters of it. Too low: the gateway
    /// idles. Too high: attempts wait past their call deadline.
    #[arg(long, env = "MAX_OPEN_ATTEMPTS", default_value_t = 1000, value_parser = value_parser!(u32).range(1..=100_000))]
    pub max_open_attempts: u32,

    /// Gateway calls at the same time. Too low: less throughput. Too high: the provider's limits are hit.
    #[arg(long, env = "GATEWAY_PARALLEL_CALLS", default_value_t = 64, value_parser = value_parser!(u16).range(1..=1024))]
    pub gateway_parallel_calls: u16,

    /// Milliseconds from the claim to the end of the gateway call; then other consumers take the attempt over. Too low:
    /// slow calls end unknown. Too high: the take-over from a dead consumer is late.
    #[arg(long, env = "CALL_DEADLINE_MS", default_value_t = 30_000, value_parser = value_parser!(u64).range(100..=600_000))]
    pub call_deadline_ms: u64,

    /// Seconds for which the gateway honors an idempotency key. Too high pays twice: never exceed what the provider
    /// guarantees. Too low: more attempts wait for a person.
    #[arg(long, env = "IDEMPOTENCY_WINDOW_SECS", default_value_t = 86_400, value_parser = value_parser!(u64).range(1..=2_592_000))]
    pub idempotency_window_secs: u64,

    /// Milliseconds before an unclear or pending attempt is looked up; doubles with every look-up. Too low: load on the
    /// provider. Too high: the customer waits.
    #[arg(long, env = "LOOKUP_BACKOFF_MS", default_value_t = 30_000, value_parser = value_parser!(u64).range(10..=3_600_000))]
    pub lookup_backoff_ms: u64,

    /// Most milliseconds between two look-ups of one attempt.
    #[arg(long, env = "LOOKUP_BACKOFF_MAX_MS", default_value_t = 3_600_000, value_parser = value_parser!(u64).range(10..=86_400_000))]
    pub lookup_backoff_max_ms: u64,
}

/// The payment provider.
#[derive(Debug, Clone, Args)]
pub struct GatewayArgs {
    /// The payment provider. There is no default, so that the simulated one is never chosen by accident.
    #[arg(long, env = "REFUND_GATEWAY", value_enum)]
    pub refund_gateway: GatewayKind,

    /// File in which the simulated gateway records its payments, for one consumer only: two consumers would not know
    /// each other's payments.
    #[arg(long, env = "SIMULATED_LEDGER")]
    pub simulated_ledger: Option<PathBuf>,

    /// Milliseconds that a call to the simulated gateway takes.
    #[arg(long, env = "SIMULATED_DELAY_MS", default_value_t = 0, value_parser = value_parser!(u64).range(0..=600_000))]
    pub simulated_delay_ms: u64,

    /// Whether the simulated gateway waits for the disk after every payment. Without it a crash of the whole machine can
    /// lose payments.
    #[arg(long, env = "SIMULATED_FSYNC")]
    pub simulated_fsync: bool,

    #[command(flatten)]
    pub http: HttpArgs,
}

/// The gateways this build knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GatewayKind {
    /// In this process, with a ledger file. For demonstrations: it moves no money.
    Simulated,
    /// A provider behind JSON over HTTP: docs/GATEWAY.md.
    Http,
}

/// The scans.
#[derive(Debug, Clone, Args)]
pub struct ReconcileArgs {
    /// Milliseconds between two scans for each kind of due work. Approvals and retries wait as long. Too low: idle load (one
    /// or two indexed reads per scan).
    #[arg(long, env = "RECONCILE_INTERVAL_MS", default_value_t = 1_000, value_parser = value_parser!(u64).range(10..=60_000))]
    pub reconcile_interval_ms: u64,

    /// Seconds in which a new return waits for its Kafka message before a scan takes it. Too low: both do the work. Too
    /// high: returns with a lost message are late.
    #[arg(long, env = "INITIATED_GRACE_SECS", default_value_t = 60, value_parser = value_parser!(u32).range(0..=3600))]
    pub initiated_grace_secs: u32,
}

/// Claim, settlement, marking as sent, each kind of scan, sweep, expiry, gauges, and one read of earlier attempts at the
/// same time.
pub(crate) const CONNECTIONS_NEEDED: u32 = 13;
/// The call deadline must be far below the key's lifetime: a repeat could start within it and end after it.
const DEADLINES_PER_WINDOW: u32 = 10;

impl Settings for Config {
    const NAME: &'static str = PROGRAM;
    const ABOUT: &'static str =
        "Pays approved returns back: claims them, calls the refund gateway, settles the outcome.";

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.db.database_max_connections < CONNECTIONS_NEEDED {
            problems.push(format!(
                "DATABASE_MAX_CONNECTIONS ({}) must be at least {CONNECTIONS_NEEDED}",
                self.db.database_max_connections
            ));
        }
        if self.pay.call_deadline() * DEADLINES_PER_WINDOW > self.pay.window() {
            problems.push(format!(
                "CALL_DEADLINE_MS ({}) must be at most a tenth of IDEMPOTENCY_WINDOW_SECS ({})",
                self.pay.call_deadline_ms, self.pay.idempotency_window_secs
            ));
        }
        problems.extend(match self.gateway.refund_gateway {
            GatewayKind::Simulated => self.gateway.simulated_problems(),
            GatewayKind::Http => self.gateway.http.problems(self.pay.call_deadline_ms),
        });
        if self.pay.lookup_backoff_max_ms < self.pay.lookup_backoff_ms {
            problems.push(format!(
                "LOOKUP_BACKOFF_MAX_MS ({}) must be at least LOOKUP_BACKOFF_MS ({})",
                self.pay.lookup_backoff_max_ms, self.pay.lookup_backoff_ms
            ));
        }
        problems.extend(self.topics.problems());
        problems
    }

    fn drain(&self) -> Duration {
        Duration::from_secs(self.consumer_drain_secs)
    }
}

impl GatewayArgs {
    fn simulated_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.simulated_ledger.is_none() {
            problems.push("SIMULATED_LEDGER is required with REFUND_GATEWAY=simulated".to_owned());
        }
        if self.http.gateway_name.is_some() {
            problems.push(format!(
                "GATEWAY_NAME names an account at a provider; with REFUND_GATEWAY=simulated the name is {}",
                GatewayName::SIMULATED
            ));
        }
        problems
    }
}

impl ReconcileArgs {
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.reconcile_interval_ms)
    }
}

impl PayArgs {
    pub fn call_deadline(&self) -> Duration {
        Duration::from_millis(self.call_deadline_ms)
    }

    pub fn window(&self) -> Duration {
        Duration::from_secs(self.idempotency_window_secs)
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
    use clap::Parser;
    use shared::runtime::program::Cli;

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
        match Cli::<Config>::try_parse_from(args) {
            Ok(cli) => cli.settings.problems(),
            Err(error) => vec![error.to_string()],
        }
    }

    #[test]
    fn good_settings_have_no_problems() {
        assert_eq!(problems(&[]), Vec::<String>::new());
    }

    #[test]
    fn every_bad_relation_is_reported() {
        let found = problems(&[
            "--database-max-connections=3",
            "--call-deadline-ms=600000",
            "--idempotency-window-secs=3600",
            "--topic-returns=",
        ]);
        assert_eq!(found.len(), 3, "{found:?}");
    }

    #[test]
    fn the_simulated_gateway_needs_its_ledger() {
        let without: Vec<&str> = GOOD
            .into_iter()
            .filter(|arg| !arg.starts_with("--simulated-ledger"))
            .collect();
        let cli = Cli::<Config>::try_parse_from(without).expect("parses");
        assert_eq!(cli.settings.problems().len(), 1);
    }

    #[test]
    fn p5_each_account_at_a_provider_has_a_name() {
        let http = ["--refund-gateway=http", "--gateway-url=https://pay.example"];
        let named = |name: &str| problems(&[http[0], http[1], &format!("--gateway-name={name}")]);
        assert_eq!(named("adyen.live"), Vec::<String>::new());
        for (found, why) in [
            (problems(&http), "GATEWAY_NAME is required"),
            (named("simulated"), "must not be simulated"),
            (named("Adyen live"), "begin with a letter"),
            (problems(&["--gateway-name=adyen"]), "the name is simulated"),
        ] {
            assert!(found.len() == 1 && found[0].contains(why), "{found:?}");
        }
    }

    #[test]
    fn a_group_name_fits_kafka_and_the_inbox() {
        assert!(parse_group("refund-consumer.2").is_ok());
        for bad in ["", "a b", "ä", &"x".repeat(65)] {
            assert!(parse_group(bad).is_err(), "{bad}");
        }
    }
}
