//! `returnsctl dev-gateway`: a payment provider that moves no money and misbehaves on request.

mod faults;
mod ledger;
mod notifier;
mod server;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::value_parser;
use serde_json::json;
use shared::runtime::shutdown;
use tokio::net::TcpListener;

use crate::error::CtlError;
use crate::output;
use faults::{Fault, Faults, Odds};
use ledger::{Ledger, Terms};
use notifier::{Notifier, NotifierArgs};
use server::Provider;

const HELP: &str = "\
Implements docs/GATEWAY.md. In addition:
  GET /ledger            every accepted refund, in order: what the provider
                         believes it paid
  PUT /faults/REFERENCE  {\"submit\":[FAULT,…],\"find\":[FAULT,…]}: the faults of the
                         next calls about one refund
  PUT /reversals/REFERENCE
                         takes the paid refund back: from now on it is declined;
                         with --notify-url it also sends a notification
  GET /healthz           204

Faults:
  timeout-before       nothing paid, no response
  timeout-after        paid, no response
  reset                paid, the connection breaks in the middle of the response
  server-error         nothing paid, 500
  server-error-after   paid, 500
  too-many-requests    429
  in-progress          409
  key-reused           422
  decline              the response declines, nothing paid
  decline-then-pays    the response declines, but the refund is paid
  slow-body            paid, the response arrives byte by byte
  wrong-amount         paid, the response has another amount
A look-up ignores the faults that are about paying.

Examples:
  returnsctl dev-gateway --ledger /tmp/ledger.jsonl
  returnsctl dev-gateway --ledger /tmp/ledger.jsonl \\
    --fault timeout-after=0.1 --fault reset=0.1 --seed 7
  REFUND_GATEWAY=http GATEWAY_NAME=dev \\
    GATEWAY_URL=http://127.0.0.1:8093 GATEWAY_IDEMPOTENCY_KEYS=true \\
    refund-consumer";

/// Longer times could leave the calendar, and are typing errors anyway.
const TEN_YEARS_SECS: u64 = 315_360_000;

/// Run a payment provider for development and tests: it moves no money and writes a ledger. Only this machine reaches it.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Loopback address to listen on. Port 0 takes a free port; the line "listening" shows it.
    #[arg(long, env = "DEV_GATEWAY_LISTEN", default_value = "127.0.0.1:8093", value_parser = parse_loopback)]
    listen: SocketAddr,

    /// File of JSON lines, one for each accepted refund. Created if it does not exist; one process at a time.
    #[arg(long, env = "DEV_GATEWAY_LEDGER", value_name = "FILE")]
    ledger: PathBuf,

    /// Ignore Idempotency-Key: each accepted call pays again.
    // The conflict stands here, because `settings` checks an argument with a value without the others.
    #[arg(long, conflicts_with = "key_lifetime_secs")]
    no_idempotency_keys: bool,

    /// Seconds for which a key is remembered. After that, its refunds are not found any more, and the key pays again.
    #[arg(long, default_value_t = 86_400, value_name = "SECS", value_parser = value_parser!(u64).range(1..=TEN_YEARS_SECS))]
    key_lifetime_secs: u64,

    /// Milliseconds from a refund's effect to its response.
    #[arg(long, default_value_t = 0, value_name = "MS")]
    delay_ms: u64,

    /// Accept refunds as pending, and settle them after this many milliseconds.
    #[arg(long, value_name = "MS", value_parser = value_parser!(u64).range(..=1_000 * TEN_YEARS_SECS))]
    settle_after_ms: Option<u64>,

    /// Milliseconds after which a look-up by reference finds an accepted refund.
    #[arg(long, default_value_t = 0, value_name = "MS")]
    look_up_lag_ms: u64,

    /// Probability that a call has this fault, from 0 to 1; several add up.
    #[arg(long, value_name = "FAULT=PROBABILITY", value_parser = faults::parse_odds)]
    fault: Vec<(Fault, f64)>,

    /// Seed of the random faults: the same calls in the same order have the same faults.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Milliseconds that a call without a response hangs, and that a slow response takes.
    #[arg(long, default_value_t = 30_000, value_name = "MS", value_parser = value_parser!(u64).range(1..))]
    hang_ms: u64,

    /// Wait for the disk after every refund. Without it, only a crash of the whole machine can lose one.
    #[arg(long)]
    fsync: bool,

    #[command(flatten)]
    notifier: NotifierArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let odds = Odds::of(&args.fault).map_err(|problem| CtlError::Usage(vec![problem]))?;
    let notifier = Notifier::new(args.notifier);
    let notifier = notifier.map_err(|problem| CtlError::Usage(vec![problem]))?;
    let terms = Terms {
        honors_keys: !args.no_idempotency_keys,
        key_lifetime: Duration::from_secs(args.key_lifetime_secs),
        settle_after: args.settle_after_ms.map(Duration::from_millis),
        look_up_lag: Duration::from_millis(args.look_up_lag_ms),
    };
    let ledger = Ledger::open(&args.ledger, terms, args.fsync).map_err(|source| {
        io(
            format!("cannot use the ledger {}", args.ledger.display()),
            source,
        )
    })?;
    let provider = Provider::new(
        ledger,
        Faults::new(odds, args.seed),
        Duration::from_millis(args.delay_ms),
        Duration::from_millis(args.hang_ms),
        notifier,
    );
    let stop = shutdown::on_signal()
        .map_err(|source| io("cannot listen to signals".to_owned(), source))?;
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|source| io(format!("cannot listen on {}", args.listen), source))?;
    let address = listener
        .local_addr()
        .map_err(|source| io("cannot read the address".to_owned(), source))?;
    output::complain(&json!({"message": "listening", "gateway.address": address}).to_string())?;
    provider.serve(listener, stop).await;
    Ok(ExitCode::SUCCESS)
}

fn parse_loopback(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(address),
        Ok(_) => Err(
            "must be a loopback address: anyone who reaches it could write the ledger".to_owned(),
        ),
        Err(error) => Err(error.to_string()),
    }
}

fn io(what: String, source: std::io::Error) -> CtlError {
    CtlError::Io { what, source }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(more: &[&str]) -> Result<Line, clap::Error> {
        let line = ["dev-gateway", "--ledger", "l"];
        Line::try_parse_from(line.iter().chain(more))
    }

    #[test]
    fn only_this_machine_reaches_it() {
        for address in ["127.0.0.1:0", "127.1.2.3:80", "[::1]:0"] {
            assert!(parse(&["--listen", address]).is_ok(), "{address}");
        }
        for address in [
            "0.0.0.0:80",
            "[::]:80",
            "10.0.0.1:80",
            "localhost:80",
            "127.0.0.1",
        ] {
            assert!(parse(&["--listen", address]).is_err(), "{address}");
        }
    }

    #[test]
    fn no_time_leaves_the_calendar() {
        for good in [
            ["--key-lifetime-secs", "315360000"],
            ["--settle-after-ms", "315360000000"],
            ["--settle-after-ms", "0"],
        ] {
            let line = parse(&good).expect("in range").args;
            let longest = Duration::from_secs(line.key_lifetime_secs)
                + Duration::from_millis(line.settle_after_ms.unwrap_or(0));
            assert!(
                time::OffsetDateTime::now_utc()
                    .checked_add(longest.try_into().expect("small"))
                    .is_some()
            );
        }
        for bad in [
            ["--key-lifetime-secs", "0"],
            ["--key-lifetime-secs", "315360001"],
            ["--settle-after-ms", "315360000001"],
        ] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ignored_keys_have_no_lifetime() {
        assert!(parse(&["--no-idempotency-keys"]).is_ok());
        assert!(parse(&["--no-idempotency-keys", "--key-lifetime-secs", "5"]).is_err());
    }
}
