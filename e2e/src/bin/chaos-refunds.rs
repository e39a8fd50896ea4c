//! The long form of the crash tests of the consumers. `make chaos-refunds` starts the servers and calls this.
#![expect(clippy::print_stdout, reason = "a person reads the output")]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use e2e::refund_chaos::{self, Disruption, Plan};

/// Kills consumers while they pay refunds: at random, at each kill point and during many rebalances, with a provider that
/// honors idempotency keys and with one that does not. Then compares the provider's ledger with rows, audit trail and Kafka.
#[derive(Debug, Parser)]
#[command(name = "chaos-refunds", version)]
struct Args {
    /// Returns of each run.
    #[arg(long, default_value_t = 5_000)]
    returns: usize,
    /// Number of kills at random times.
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// Seconds between two kills, on average.
    #[arg(long, default_value_t = 4)]
    every: u64,
    /// Number of deaths at each kill point, in a run of their own.
    #[arg(long, default_value_t = 20)]
    each: usize,
    /// Seconds of the run with many rebalances, with a change every three seconds.
    #[arg(long, default_value_t = 60)]
    storm: u64,
    /// Milliseconds that the provider with idempotency keys takes.
    #[arg(long, default_value_t = 500)]
    delay_ms: u64,
    /// The seed for victims and times; the same seed repeats a run. Random if left out.
    #[arg(long)]
    seed: Option<u64>,
}

/// The time between two changes of the run with many rebalances.
const STORM_EVERY: Duration = Duration::from_secs(3);

impl Args {
    fn plans(&self) -> [Plan; 4] {
        let seed = self.seed.unwrap_or_else(rand::random);
        let plan = |disruption| Plan {
            returns: self.returns,
            disruption,
            gateway: vec![format!("--delay-ms={}", self.delay_ms)],
            settings: Vec::new(),
            seed,
        };
        let at_random = Disruption::KillAtRandom {
            kills: self.kills,
            every: Duration::from_secs(self.every),
        };
        let without_keys = Plan {
            gateway: ["--no-idempotency-keys", "--delay-ms=5000"]
                .map(str::to_owned)
                .to_vec(),
            settings: [
                ("CALL_DEADLINE_MS", "8000"),
                ("GATEWAY_CALL_TIMEOUT_MS", "7000"),
                ("LOOKUP_BACKOFF_MS", "500"),
                ("LOOKUP_BACKOFF_MAX_MS", "2000"),
            ]
            .map(|(name, value)| (name, value.to_owned()))
            .to_vec(),
            // Two consumers with 64 calls of 5 s each make 25 calls a second.
            returns: self.returns / 4,
            ..plan(at_random.clone())
        };
        [
            plan(at_random),
            plan(Disruption::DieAtSteps { each: self.each }),
            plan(Disruption::Storm {
                lasts: Duration::from_secs(self.storm),
                every: STORM_EVERY,
            }),
            without_keys,
        ]
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    for plan in Args::parse().plans() {
        if let Err(error) = refund_chaos::run(&plan, |line| println!("{line}")).await {
            println!("chaos-refunds: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
