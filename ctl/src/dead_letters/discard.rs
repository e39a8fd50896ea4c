//! `returnsctl dead-letters discard`

use std::process::ExitCode;

use serde_json::json;

use super::letter::{no_such_letter, remove};
use crate::error::CtlError;
use crate::operator::OperatorArgs;
use crate::output;
use crate::session::{SessionArgs, retried};
use crate::store::actions::Verb;

const EXAMPLE: &str = "\
WHAT THIS MEANS: the record is gone from here for good; in Kafka it stays until its topic forgets it. Where it stood,
why it was put aside, and the digests of its key, headers and payload are kept in operator_actions. Keep the payload
yourself if it may be wanted: `returnsctl dead-letters show ID --raw`.

Example:
  returnsctl dead-letters discard 7 --by j.doe --reason 'INC-9: a test record of another team'";

/// Remove one dead letter for good.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// The dead letter, as `returnsctl dead-letters list` shows it.
    #[arg(value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    id: i64,

    #[command(flatten)]
    operator: OperatorArgs,

    #[command(flatten)]
    session: SessionArgs,
}

pub(super) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    let mut conn = args.session.connect().await?;
    let (id, because) = (args.id, args.operator.because());
    let removed = retried(&mut conn, async |conn| {
        remove(conn, id, Verb::DiscardLetter, because, None).await
    })
    .await?;
    if !removed {
        return Err(no_such_letter(id));
    }
    if args.session.json {
        output::print_json(&json!({ "action": "discard", "discarded": id }))?;
    } else {
        output::print(&format!("discarded dead letter {id}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
