//! `returnsctl outbox`: the operator's side of the relay. Looking changes nothing and locks nothing; every command
//! that changes something says who did it and why in `operator_actions`, in the same transaction.

mod discard;
mod operator;
mod parked;
mod pause;
mod peek;
mod redrive;
mod stats;

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use shared::db::{self, DbArgs, DbFailure};
use shared::ids::Shard;
use shared::retry::full_jitter;
use shared::schema;
use sqlx::mysql::MySqlConnection;

use crate::error::CtlError;
use crate::server;

const HELP: &str = "\
Exit codes, beside the usual ones:
  1   what was named is not there: no such event or order, or nothing parked for it

stats, peek and parked only read. redrive, discard, pause and resume need --by and --reason, and leave one row per
event or shard in the table operator_actions.";

/// Look into the outbox, and operate it: what waits, what is parked, who publishes which shard.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: OutboxCommand,
}

#[derive(Debug, Subcommand)]
enum OutboxCommand {
    Stats(stats::Args),
    Peek(peek::Args),
    Parked(parked::Args),
    Redrive(redrive::Args),
    Discard(discard::Args),
    Pause(pause::PauseArgs),
    Resume(pause::ResumeArgs),
}

pub(crate) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    match &args.command {
        OutboxCommand::Stats(args) => stats::run(args).await,
        OutboxCommand::Peek(args) => peek::run(args).await,
        OutboxCommand::Parked(args) => parked::run(args).await,
        OutboxCommand::Redrive(args) => redrive::run(args).await,
        OutboxCommand::Discard(args) => discard::run(args).await,
        OutboxCommand::Pause(args) => pause::pause(args).await,
        OutboxCommand::Resume(args) => pause::resume(args).await,
    }
}

// No doc comment: clap would take it for the text of every command that flattens this.
#[derive(Debug, clap::Args)]
#[command(mut_arg("database_max_connections", |arg| arg.hide(true)))]
struct Common {
    #[command(flatten)]
    db: DbArgs,

    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

impl Common {
    /// A connection to a database that has the schema of this build.
    async fn connect(&self) -> Result<MySqlConnection, CtlError> {
        let options = server::reach(&self.db).await?;
        let pool = self
            .db
            .pool()
            .map_err(|problem| CtlError::Usage(vec![problem]))?;
        let checked = schema::check(&pool).await;
        pool.close().await;
        checked?;
        let mut conn = db::connect(&options).await?;
        db::be_brief(&mut conn).await?;
        Ok(conn)
    }
}

fn parse_shard(text: &str) -> Result<Shard, String> {
    let number: u8 = text.parse().map_err(|_| no_shard())?;
    Shard::all()
        .find(|shard| shard.0 == number)
        .ok_or_else(no_shard)
}

fn no_shard() -> String {
    format!("must be a shard, 0 to {}", Shard::COUNT - 1)
}

/// How often a transaction is run that loses a lock conflict; relays hold a lease row for milliseconds.
const ATTEMPTS: u32 = 5;

/// Runs a transaction, again after a lock conflict: InnoDB has rolled it back, or it did so itself by being dropped.
async fn retried<T>(
    conn: &mut MySqlConnection,
    transaction: impl AsyncFn(&mut MySqlConnection) -> sqlx::Result<T>,
) -> sqlx::Result<T> {
    let mut attempt = 0;
    loop {
        let outcome = transaction(conn).await;
        attempt += 1;
        match &outcome {
            Err(error) if DbFailure::of(error) == DbFailure::LockConflict && attempt < ATTEMPTS => {
                let pause = full_jitter(attempt, Duration::from_millis(50), Duration::from_secs(1));
                tokio::time::sleep(pause).await;
            }
            Ok(_) | Err(_) => return outcome,
        }
    }
}

/// `1 row`, `2 rows`.
fn counted(count: i64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        n => format!("{n} {noun}s"),
    }
}

/// Text from the database as it may go to a terminal: without its control characters, which are commands there.
fn printable(text: &str) -> String {
    text.chars().fold(String::new(), |mut told, c| {
        if c.is_control() {
            told.extend(c.escape_default());
        } else {
            told.push(c);
        }
        told
    })
}

/// A length of time for people, in its largest sensible unit.
fn span(secs: f64) -> String {
    match secs {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_one_of_the_sixteen() {
        assert_eq!(parse_shard("15"), Ok(Shard(15)));
        for text in ["16", "-1", "", "x", "256"] {
            assert_eq!(
                parse_shard(text),
                Err("must be a shard, 0 to 15".to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn spans_are_told_in_their_largest_unit() {
        let told = [0.04, 9.9, 119.0, 125.0, 7_300.0, 200_000.0].map(span);
        assert_eq!(told, ["0.0 s", "9.9 s", "119 s", "2 min", "2 h", "2 d"]);
    }
}
