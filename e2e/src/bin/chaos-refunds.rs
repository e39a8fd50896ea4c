//! The long form of the consumers' crash tests. `make chaos-refunds` starts the servers and calls this.
#![expect(clippy::print_stdout, reason = "it talks to a person")]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use e2e::paying::{self, Plan, Unrest};

/// Kills consumers while they pay through a payment provider, at random, at each named step and in a storm of
/// rebalances, with a provider that honors keys and with one that does not, then compares the provider's ledger with
/// rows, audit trail and Kafka.
#[derive(Debug, Parser)]
#[command(name = "chaos-refunds", version)]
struct Args {
    /// Returns of each run.
    #[arg(long, default_value_t = 5_000)]
    returns: usize,
    /// Kills at random.
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// Seconds from one to the next, on average.
    #[arg(long, default_value_t = 4)]
    every: u64,
    /// Deaths at each step, in a run of their own.
    #[arg(long, default_value_t = 20)]
    each: usize,
    /// Seconds of the storm, with a change every third.
    #[arg(long, default_value_t = 60)]
    storm: u64,
    /// Milliseconds that the provider with keys takes.
    #[arg(long, default_value_t = 500)]
    delay_ms: u64,
    /// Chooses victims and times; the same as in an earlier run makes them the same. Random if left out.
    #[arg(long)]
    seed: Option<u64>,
}

/// Seconds from one change of the storm to the next.
const STORM_EVERY: Duration = Duration::from_secs(3);

impl Args {
    fn plans(&self) -> [Plan; 4] {
        let seed = self.seed.unwrap_or_else(rand::random);
        let plan = |unrest| Plan {
            returns: self.returns,
            unrest,
            gateway: vec![format!("--delay-ms={}", self.delay_ms)],
            settings: Vec::new(),
            seed,
        };
        let at_random = Unrest::KillAtRandom {
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
            // 64 calls of 5 s at each of two consumers are 25 a second.
            returns: self.returns / 4,
            ..plan(at_random.clone())
        };
        [
            plan(at_random),
            plan(Unrest::DieAtSteps { each: self.each }),
            plan(Unrest::Storm {
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
        if let Err(error) = paying::run(&plan, |line| println!("{line}")).await {
            println!("chaos-refunds: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
