//! The long form of the chaos test of the relays. `make chaos` starts the servers and calls this.
#![expect(clippy::print_stdout, reason = "a person reads the output")]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use e2e::chaos::{self, Findings, Plan};

/// Kills, freezes and stops relays while events flow, then checks every record of both topics.
#[derive(Debug, Parser)]
#[command(name = "chaos", version)]
struct Args {
    /// Number of relays.
    #[arg(long, default_value_t = 3)]
    relays: usize,
    /// Number of connections that write.
    #[arg(long, default_value_t = 4)]
    writers: usize,
    /// Number of returns.
    #[arg(long, default_value_t = 50_000)]
    returns: usize,
    /// The least number of events.
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// Events per second.
    #[arg(long, default_value_t = 5_000)]
    rate: u32,
    /// The least number of kills and freezes.
    #[arg(long, default_value_t = 60)]
    take_overs: usize,
    /// Seconds between two faults.
    #[arg(long, default_value_t = 5)]
    every: u64,
    /// Length of a lease in milliseconds.
    #[arg(long, default_value_t = 3_000)]
    lease_ms: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let plan = Plan {
        relays: args.relays,
        writers: args.writers,
        returns: args.returns,
        events: args.events,
        events_per_second: args.rate,
        take_overs: args.take_overs,
        every: Duration::from_secs(args.every),
        lease: Duration::from_millis(args.lease_ms),
        spare: Duration::from_secs(1),
        hand_over: Duration::from_secs(1),
    };
    match chaos::run(&plan, |line| println!("{line}")).await {
        Ok(findings) => {
            println!("{}", report(&findings));
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn report(findings: &Findings) -> String {
    let repeats = findings.topics.repeats;
    format!(
        "{} events in {:.0} s, none lost, none out of order, {} records twice: {} by the next owner, {} by a frozen \
         former owner, {} by the same owner\n\
         take-over after a kill: {}\n\
         take-over after a freeze: {}\n\
         hand-over after SIGTERM: {}",
        findings.topics.events,
        findings.seconds,
        repeats.count(),
        repeats.by_successors,
        repeats.late,
        repeats.by_owners,
        spread(&findings.after_kill),
        spread(&findings.after_freeze),
        spread(&findings.after_stop),
    )
}

fn spread(times: &[Duration]) -> String {
    let of = |percent| chaos::percentile(times, percent).map_or(0, |time| time.as_millis());
    format!(
        "n = {}, median {} ms, p99 {} ms, longest {} ms",
        times.len(),
        of(50),
        of(99),
        of(100)
    )
}
