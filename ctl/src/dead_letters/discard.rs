//! `returnsctl dead-letters discard`

use std::process::ExitCode;

use serde_json::json;

use super::record::{no_such_dead_letter, remove};
use crate::error::CtlError;
use crate::operator::OperatorArgs;
use crate::output::{self, Message};
use crate::session::SessionArgs;
use crate::store::actions::Verb;

const HELP: &str = "\
WHAT THIS MEANS: the record is removed from MySQL for good; in Kafka it stays as long as its topic keeps it. Its position, \
the reason, and the digests of its key, headers and payload are kept in operator_actions. Save the payload first if \
it may be needed: `returnsctl dead-letters show ID --raw`.

Example:
  returnsctl dead-letters discard 7 --by j.doe \\
    --reason 'INC-9: a test record of another team'";

/// Remove one dead letter for good.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// The dead letter, as `returnsctl dead-letters list` shows it.
    #[arg(value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    id: i64,

    #[command(flatten)]
    operator: OperatorArgs,

    #[command(flatten)]
    session: SessionArgs,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let session = args.session.connect().await?;
    let (id, author) = (args.id, args.operator.author());
    let removed = session.transaction("discard_dead_letter", move |conn| {
        let author = author.clone();
        Box::pin(async move { remove(conn, id, Verb::DiscardDeadLetter, &author, None).await })
    });
    if !removed.await? {
        return Err(no_such_dead_letter(id));
    }
    let report = Message {
        json: json!({ "action": "discard", "discarded": id }),
        text: format!("Discarded dead letter {id}."),
    };
    output::report(&report, args.session.json)?;
    Ok(ExitCode::SUCCESS)
}
