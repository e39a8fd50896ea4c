//! `returnsctl outbox park`

use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;
use shared::domain::ids::Shard;
use sqlx::mysql::MySqlConnection;

use crate::error::CtlError;
use crate::operator::OperatorArgs;
use crate::output;
use crate::session::{Session, SessionArgs};
use crate::store::actions::{Author, Subject, Verb, record};
use crate::store::leases::{lock_lease, raise_redrive_gen};
use crate::store::parked::{ParkedRows, RowId, copy_to_parked, delete_waiting, waiting_of_topic};
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

/// Of one transaction: milliseconds of work, so that the shard's relay can renew its lease.
const ROWS_PER_TRANSACTION: usize = 500;

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
    let mut report = Report {
        action: "park",
        topic: topic.to_string(),
        parked_rows: 0,
    };
    for shard in Shard::all() {
        report.parked_rows += park_in(&session, shard, &topic, &author).await?;
    }
    output::report(&report, args.session.json)?;
    Ok(ExitCode::from(u8::from(report.parked_rows == 0)))
}

/// Parks the rows that wait in one shard now, group after group.
async fn park_in(
    session: &Session,
    shard: Shard,
    topic: &Arc<str>,
    author: &Arc<Author>,
) -> Result<u64, CtlError> {
    let (mut parked, mut after) = (0, 0);
    loop {
        let wanted = Arc::clone(topic);
        let rows = session.read("waiting_of_topic", move |conn| {
            Box::pin(async move {
                waiting_of_topic(conn, shard, &wanted, after, ROWS_PER_TRANSACTION).await
            })
        });
        let rows: Arc<[RowId]> = rows.await?.into();
        let Some(last) = rows.last() else {
            return Ok(parked);
        };
        after = last.id;
        let author = Arc::clone(author);
        let moved = session.transaction("park_rows", move |conn| {
            let (rows, author) = (Arc::clone(&rows), Arc::clone(&author));
            Box::pin(async move { park(conn, shard, &rows, &author).await })
        });
        parked += moved.await?;
    }
}

/// Rows that were sent in the meantime are no longer there, and are not parked.
async fn park(
    conn: &mut MySqlConnection,
    shard: Shard,
    rows: &[RowId],
    author: &Author,
) -> Result<u64, CtlError> {
    lock_lease(conn, shard).await?;
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
