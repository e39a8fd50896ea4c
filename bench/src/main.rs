//! Measures the system on this machine: release builds as processes of their own, real MySQL, real Kafka, every
//! answer and every record checked. `make bench` starts the servers and calls this; docs/BENCHMARKS.md holds runs.

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

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::process::Servers;

/// Benchmarks; exit 0 when every answer was right, 1 when one was not, 2 when it could not be measured.
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
    /// Tokens: the cost of one, and 64 callers with good ones.
    Auth(auth::AuthArguments),
    /// The relay: draining a backlog, latency from commit to a reader, cost of doing nothing.
    Relay(relay::RelayArgs),
    /// The refund consumer: paying what waits in Kafka.
    Refunds(refunds::RefundArgs),
    /// A good client beside slow and idle ones.
    Hostile(hostile::HostileArgs),
    /// Reading single returns and pages of a million.
    Reads(reads::ReadArgs),
    /// Streams of events: memory of one, and from COMMIT to the last client.
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
