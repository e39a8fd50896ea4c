//! `returnsctl outbox move`

use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;
use shared::domain::event::is_topic_name;
use shared::domain::ids::Shard;
use sqlx::mysql::MySqlConnection;

use super::by_topic::change_rows;
use crate::error::CtlError;
use crate::operator::OperatorArgs;
use crate::output;
use crate::session::SessionArgs;
use crate::store::actions::{Author, Subject, Verb, record};
use crate::store::parked::{ParkedRows, RowId, RowsOfTopic, move_parked};
use crate::text::counted;

const HELP: &str = "\
Only parked rows are changed: `returnsctl outbox park --topic NAME --by NAME --reason TEXT` parks them first, and \
`returnsctl outbox redrive --all --by NAME --reason TEXT` puts them back afterwards. Everything but the topic stays as the \
writer wrote it. Each event adds a row to operator_actions, with both topics.

Example:
  returnsctl outbox move --topic order.rteurns --to order.returns --by j.doe \\
    --reason 'INC-9: mistyped TOPIC_RETURNS'";

/// Give the parked rows of a topic another topic.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// The topic of the parked rows.
    #[arg(long, value_name = "NAME")]
    topic: String,

    /// Their new topic.
    #[arg(long, value_name = "NAME", value_parser = parse_topic)]
    to: String,

    #[command(flatten)]
    operator: OperatorArgs,

    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    action: &'static str,
    topic: String,
    to: String,
    moved_rows: u64,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let session = args.session.connect().await?;
    let author = Arc::new(args.operator.author());
    let (topic, to): (Arc<str>, Arc<str>) = (args.topic.into(), args.to.into());
    let new_topic = Arc::clone(&to);
    let moved = change_rows(
        &session,
        "move_rows",
        RowsOfTopic::Parked,
        &topic,
        move |conn, shard, rows| {
            let (to, author) = (Arc::clone(&new_topic), Arc::clone(&author));
            Box::pin(async move { Ok(move_in(conn, shard, &rows, &to, &author).await?) })
        },
    );
    let report = Report {
        action: "move",
        moved_rows: moved.await?,
        topic: topic.to_string(),
        to: to.to_string(),
    };
    output::report(&report, args.session.json)?;
    Ok(ExitCode::from(u8::from(report.moved_rows == 0)))
}

async fn move_in(
    conn: &mut MySqlConnection,
    shard: Shard,
    rows: &[RowId],
    to: &str,
    author: &Author,
) -> sqlx::Result<u64> {
    let rows = ParkedRows::Ids(shard, rows);
    record(conn, Verb::MoveRows, author, Subject::Moved(rows, to)).await?;
    move_parked(conn, rows, to).await
}

fn parse_topic(text: &str) -> Result<String, String> {
    if is_topic_name(text) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 249 of a-z A-Z 0-9 . _ -".to_owned())
    }
}

impl output::Report for Report {
    fn text(&self) -> String {
        format!(
            "Moved {} from topic {:?} to {:?}: put them back with `returnsctl outbox redrive --all --by NAME \
             --reason TEXT`.",
            counted(
                i64::try_from(self.moved_rows).unwrap_or(i64::MAX),
                "parked row"
            ),
            self.topic,
            self.to
        )
    }
}
