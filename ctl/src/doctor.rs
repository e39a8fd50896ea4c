//! `returnsctl doctor`: is everything as the programs need it?
//!
//! Only reads; changes nothing. Each check is one entry, and every entry that is not ok says what to do.

mod files;
mod kafka;
mod mysql;
mod report;
mod waiting;

use std::process::ExitCode;

use shared::domain::event::TopicArgs;
use shared::runtime::db::DbArgs;
use shared::runtime::kafka::KafkaArgs;

use self::report::Report;
use crate::error::CtlError;
use crate::keys::KeyArgs;
use crate::output;

/// Check MySQL, Kafka, topics, clocks, keys, and what waits for a person; each check is ok, warn or FAIL, with what to do.
#[derive(Debug, clap::Args)]
#[command(mut_arg("database_max_connections", |arg| arg.hide(true)))]
pub(crate) struct Args {
    #[command(flatten)]
    db: DbArgs,

    #[command(flatten)]
    kafka: KafkaArgs,

    #[command(flatten)]
    topics: TopicArgs,

    #[command(flatten)]
    keys: KeyArgs,

    /// Days for which the refund consumer remembers event ids; must be longer than the topic keeps events. Give this
    /// command the value of the consumer's setting.
    #[arg(long, env = "INBOX_RETENTION_DAYS", default_value_t = 14, value_parser = clap::value_parser!(u16).range(1..=3650))]
    inbox_retention_days: u16,

    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let problems = args.topics.problems();
    if !problems.is_empty() {
        return Err(CtlError::Usage(problems));
    }
    let mut report = Report::default();
    mysql::examine(&args.db, &mut report).await;
    kafka::examine(
        &args.kafka,
        &args.topics,
        args.inbox_retention_days,
        &mut report,
    )
    .await;
    files::examine(&args.keys, &mut report);
    output::report(&report, args.json)?;
    Ok(report.exit_code())
}
