//! `returnsctl outbox park`

use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;
use shared::domain::ids::Shard;
use sqlx::mysql::MySqlConnection;

use super::by_topic::change_rows;
use crate::error::CtlError;
use crate::operator::OperatorArgs;
use crate::output;
use crate::session::SessionArgs;
use crate::store::actions::{Author, Subject, Verb, record};
use crate::store::leases::raise_redrive_gen;
use crate::store::parked::{ParkedRows, RowId, RowsOfTopic, copy_to_parked, delete_waiting};
use crate::text::counted;

const HELP: &str = "\
For rows that wait for a topic that will never exist, or that nobody may write to: they are put aside, where \
`returnsctl outbox parked` shows them. The relay parks the later events of their orders behind them as it reads them.

Then `outbox move` gives them another topic, `outbox redrive` puts them back, and `outbox discard` gives one up; see \
`returnsctl outbox --help`. Each event adds a row to operator_actions.";

/// Put aside the waiting rows of a topic.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// The topic, exactly as `returnsctl outbox topics` shows it.
    #[arg(long, value_name = "NAME")]
    topic: String,

    #[command(flatten)]
    operator: OperatorArgs,

    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    action: &'static str,
    topic: String,
    parked_rows: u64,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let session = args.session.connect().await?;
    let author = Arc::new(args.operator.author());
    let topic: Arc<str> = args.topic.into();
    let parked = change_rows(
        &session,
        "park_rows",
        RowsOfTopic::Waiting,
        &topic,
        move |conn, shard, rows| {
            let author = Arc::clone(&author);
            Box::pin(async move { park(conn, shard, &rows, &author).await })
        },
    );
    let report = Report {
        action: "park",
        parked_rows: parked.await?,
        topic: topic.to_string(),
    };
    output::report(&report, args.session.json)?;
    Ok(ExitCode::from(u8::from(report.parked_rows == 0)))
}

/// Rows that were sent in the meantime are no longer there, and are not parked.
async fn park(
    conn: &mut MySqlConnection,
    shard: Shard,
    rows: &[RowId],
    author: &Author,
) -> Result<u64, CtlError> {
    let why = format!("parked by {}: {}", author.actor_id, author.reason);
    let copied = copy_to_parked(conn, shard, rows, &why).await?;
    let deleted = delete_waiting(conn, shard, rows).await?;
    let subject = Subject::Parked(ParkedRows::Ids(shard, rows));
    let recorded = record(conn, Verb::ParkRows, author, subject).await?;
    let raised = raise_redrive_gen(conn, shard).await?;
    if (deleted, recorded.rows, raised) == (copied, copied, 1) {
        Ok(copied)
    } else {
        Err(CtlError::Problem(format!(
            "the relay sent rows of shard {shard} in the meantime; that transaction was rolled back.\n\
             To do: run again"
        )))
    }
}

impl output::Report for Report {
    fn text(&self) -> String {
        format!(
            "Parked {} of topic {:?}: see `returnsctl outbox parked`.",
            counted(i64::try_from(self.parked_rows).unwrap_or(i64::MAX), "row"),
            self.topic
        )
    }
}
