//! `returnsctl doctor`: is everything as the programs need it?
//!
//! Only reads; changes nothing. Each check is one entry with a deadline of its own, and every entry that is not ok says
//! what to do.

mod audit;
mod files;
mod group;
mod kafka;
mod mysql;
mod orders;
mod outbox;
mod report;
mod waiting;

use std::process::ExitCode;

use shared::domain::event::TopicArgs;
use shared::runtime::db::DbArgs;
use shared::runtime::kafka::KafkaArgs;

use self::report::Report;
use crate::consumer_group::GroupArgs;
use crate::error::CtlError;
use crate::keys::KeyArgs;
use crate::output;

const HELP: &str = "\
Each check is ok, warn (not as production needs it), wait (for a person) or FAIL.

Exit codes: 0 nothing is broken and nothing waits for a person; 1 something is broken; 2 a server does not respond, so \
a result is unknown; 3 nothing is broken, but something waits for a person (1 with --strict); 64 bad usage.";

/// Check MySQL, Kafka, topics, clocks, keys, whether relays and consumers are at work, and what waits for a person.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
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

    #[command(flatten)]
    group: GroupArgs,

    /// End with 1 also if something waits for a person.
    #[arg(long)]
    strict: bool,

    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let problems = args.topics.problems();
    if !problems.is_empty() {
        return Err(CtlError::Usage(problems));
    }
    let mut report = Report::new(args.strict);
    mysql::examine(&args.db, &mut report).await;
    kafka::examine(
        &args.kafka,
        &args.topics,
        args.inbox_retention_days,
        &mut report,
    )
    .await;
    group::examine(
        &args.kafka,
        &args.group.consumer_group,
        &args.topics.topic_returns,
        &mut report,
    )
    .await;
    files::examine(&args.keys, &mut report);
    output::report(&report, args.json)?;
    Ok(report.exit_code())
}
