//! `returnsctl outbox discard`

use std::process::ExitCode;

use serde::Serialize;
use shared::domain::ids::{EventId, Shard};
use sqlx::Connection;
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use crate::error::CtlError;
use crate::operator::OperatorArgs;
use crate::output;
use crate::session::{SessionArgs, retried};
use crate::store::actions::{Because, Verb, record_rows};
use crate::store::operate::{self as store, Parked};
use crate::text::counted;

const EXAMPLE: &str = "\
WHAT THIS MEANS FOR READERS: they never get this event. Whoever proves completeness by `seq` finds a gap in that
return's history, for ever; the change itself stays in return_events and is not undone. Prefer redrive.

Only a parked event can be discarded; one that waits will be sent. Its identity and the digest of its payload are kept
in operator_actions. Rows that followed it stay parked: send them with `returnsctl outbox redrive --order ID`.";

/// Remove one parked event for good: it will never be sent.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
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

pub(super) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    let event = EventId(args.event);
    let mut conn = args.session.connect().await?;
    let Some((shard, id, order)) = store::find_parked(&mut conn, event).await? else {
        return Err(not_parked(event));
    };
    let row = Parked::Row(shard, id, event);
    let because = args.operator.because();
    let was_parked = retried(&mut conn, async |conn| {
        discard(conn, row, shard, because).await
    })
    .await?;
    if !was_parked {
        return Err(not_parked(event));
    }
    let report = Report {
        action: "discard",
        discarded_rows: 1,
        event_id: event,
        shard,
        id,
        still_parked: store::count_parked(&mut conn, shard, &order).await?,
        order,
    };
    report.tell(args.session.json)?;
    Ok(ExitCode::SUCCESS)
}

/// Answers `false` and changes nothing if the row is not parked any more.
///
/// The generation rises here too: the relay would go on sending new events of the order after the row that is gone.
async fn discard(
    conn: &mut MySqlConnection,
    row: Parked<'_>,
    shard: Shard,
    because: Because<'_>,
) -> sqlx::Result<bool> {
    let mut tx = conn.begin().await?;
    store::lock_lease(&mut tx, shard).await?;
    let recorded = record_rows(&mut tx, Verb::Discard, because, row).await?;
    let deleted = store::delete_parked(&mut tx, row).await?;
    let raised = store::raise_redrive_gen(&mut tx, shard).await?;
    if (recorded, deleted, raised) == (1, 1, 1) {
        tx.commit().await?;
        Ok(true)
    } else {
        tx.rollback().await?;
        Ok(false)
    }
}

fn not_parked(event: EventId) -> CtlError {
    CtlError::Problem(format!(
        "event {event} is not parked; nothing was changed.\n\
         To do: `returnsctl outbox peek --event {event}` tells whether it waits to be sent; if it is in neither \
         place, it was sent or discarded"
    ))
}

impl Report {
    fn tell(&self, json: bool) -> Result<(), CtlError> {
        if json {
            return output::print_json(self);
        }
        let mut text = format!(
            "discarded 1 row: event {} of order {} (shard {} id {}) will never be sent",
            self.event_id, self.order, self.shard, self.id
        );
        if self.still_parked > 0 {
            text.push_str(&format!(
                "\n{} of this order still parked: `returnsctl outbox redrive --order {}`",
                counted(self.still_parked, "row"),
                self.order
            ));
        }
        output::print(&text)
    }
}
