//! `returnsctl outbox discard`

use std::process::ExitCode;

use serde::Serialize;
use shared::domain::ids::{EventId, Shard};
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use crate::error::CtlError;
use crate::operator::OperatorArgs;
use crate::output;
use crate::session::SessionArgs;
use crate::store::actions::{Author, Subject, Verb, record};
use crate::store::leases::{lock_lease, raise_redrive_gen};
use crate::store::parked::{ParkedRows, count_parked, delete_parked, find_parked};
use crate::text::counted;

const HELP: &str = "\
WHAT THIS MEANS FOR READERS: they never get this event. A reader that checks completeness by `seq` finds a permanent gap \
in the history of that return. The change itself stays in return_events and is not undone. Prefer redrive.

Only a parked event can be discarded; a waiting one will be sent. Its identity and the digest of its payload are kept in \
operator_actions. Rows that followed it stay parked: send them with `returnsctl outbox redrive --order ID \
--by NAME --reason TEXT`.";

/// Remove one parked event for good: it will never be sent.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// The event, as `returnsctl outbox parked` shows it.
    #[arg(long, value_name = "UUID")]
    event: Uuid,

    #[command(flatten)]
    operator: OperatorArgs,

    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    action: &'static str,
    discarded_rows: u8,
    event_id: EventId,
    shard: Shard,
    id: i64,
    order: String,
    /// Rows of the same order that are still parked.
    still_parked: i64,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let event = EventId(args.event);
    let session = args.session.connect().await?;
    let found = session.read("find_parked", move |conn| {
        Box::pin(find_parked(conn, event))
    });
    let (shard, id, order) = found.await?.ok_or_else(|| not_parked(event))?;
    let author = args.operator.author();
    session
        .transaction("discard_row", move |conn| {
            let author = author.clone();
            Box::pin(async move { discard(conn, shard, id, event, &author).await })
        })
        .await?;
    let key = order.clone();
    let still_parked = session.read("count_parked", move |conn| {
        Box::pin(async move { count_parked(conn, shard, &key).await })
    });
    let report = Report {
        action: "discard",
        discarded_rows: 1,
        event_id: event,
        shard,
        id,
        still_parked: still_parked.await?,
        order,
    };
    output::report(&report, args.session.json)?;
    Ok(ExitCode::SUCCESS)
}

/// The generation rises here too: otherwise the relay would keep sending new events of the order to where the deleted row
/// was.
///
/// # Errors
/// The row is not parked any more; nothing is changed.
async fn discard(
    conn: &mut MySqlConnection,
    shard: Shard,
    id: i64,
    event: EventId,
    author: &Author,
) -> Result<(), CtlError> {
    let row = ParkedRows::Row(shard, id, event);
    lock_lease(conn, shard).await?;
    let recorded = record(conn, Verb::DiscardRow, author, Subject::Parked(row)).await?;
    let deleted = delete_parked(conn, row).await?;
    let raised = raise_redrive_gen(conn, shard).await?;
    if (recorded.rows, deleted, raised) == (1, 1, 1) {
        Ok(())
    } else {
        Err(not_parked(event))
    }
}

fn not_parked(event: EventId) -> CtlError {
    CtlError::Problem(format!(
        "event {event} is not parked; nothing was changed.\n\
         To do: `returnsctl outbox peek --event {event}` shows whether it waits to be sent; if it is in neither table, \
         it was sent or discarded"
    ))
}

impl output::Report for Report {
    fn text(&self) -> String {
        let mut text = format!(
            "Discarded 1 row: event {} of order {} (shard {} id {}) will never be sent.",
            self.event_id, self.order, self.shard, self.id
        );
        if self.still_parked > 0 {
            text.push_str(&format!(
                "\n{} of this order still parked: `returnsctl outbox redrive --order {} --by NAME --reason TEXT`.",
                counted(self.still_parked, "row"),
                self.order
            ));
        }
        text
    }
}
