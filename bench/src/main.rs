//! Measures the system on this machine: release builds in their own processes, real MySQL, real Kafka. Every response and
//! every record is checked. `make bench` starts the servers and calls this; docs/BENCHMARKS.md has the results.

mod api;
mod auth;
mod connection;
mod filing;
mod hostile;
mod open_files;
mod process;
mod reads;
mod refunds;
mod relay;
mod report;
mod streams;
mod tokens;
mod traces;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::process::Servers;

/// Benchmarks. Exit code 0: every response was right; 1: one was not; 2: the measurement failed.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Args {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    servers: Servers,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Filing throughput and latency, with group commit and with batches of one.
    Filing(filing::FilingArgs),
    /// Tokens: the cost of one, and 64 callers with valid ones.
    Auth(auth::AuthArguments),
    /// The relay: draining a backlog, latency from commit to a Kafka consumer, cost when idle.
    Relay(relay::RelayArgs),
    /// The refund consumer: refunding a backlog in Kafka.
    Refunds(refunds::RefundArgs),
    /// A normal client beside slow and idle ones.
    Hostile(hostile::HostileArgs),
    /// Reading single returns, and pages of a list of a million.
    Reads(reads::ReadArgs),
    /// Traces: what they cost, and a collector that goes away.
    Traces(traces::TraceArguments),
    /// Streams of events: memory of each, and the time from COMMIT to the last client.
    Streams(streams::StreamArguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match &args.what {
        What::Filing(filing) => filing::run(filing, &args.servers).await,
        What::Auth(auth) => auth::run(auth).await,
        What::Relay(relay) => relay::run(relay, &args.servers).await,
        What::Refunds(refunds) => refunds::run(refunds, &args.servers).await,
        What::Hostile(hostile) => hostile::run(hostile).await,
        What::Reads(reads) => reads::run(reads, &args.servers).await,
        What::Traces(traces) => traces::run(traces, &args.servers).await,
        What::Streams(streams) => streams::run(streams, &args.servers).await,
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a command line program complains there"
)]
fn complain(message: &str) {
    eprintln!("bench: {message}");
}
