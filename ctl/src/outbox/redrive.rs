//! `returnsctl outbox redrive`
//!
//! Rows return under their own `(shard, id)`: the order of a return's events is the order of their ids. All rows of
//! one order return in one transaction, never some of them: while any is parked the relay sends every row of that
//! order back there, and the reason of the first would be lost. Many orders are put back in several transactions, so
//! that no lease row is locked for long: its relay could not renew meanwhile.

use std::process::ExitCode;

use clap::ArgGroup;
use serde::Serialize;
use shared::domain::ids::Shard;
use shared::runtime::db::DbFailure;
use sqlx::Connection;
use sqlx::mysql::MySqlConnection;

use super::parse_shard;
use crate::error::CtlError;
use crate::operator::OperatorArgs;
use crate::output;
use crate::session::{SessionArgs, retried};
use crate::store::actions::{Because, Verb, record_rows};
use crate::store::operate::{self as store, Parked};
use crate::store::redrive::{self, ParkedKey, Scope};
use crate::text::counted;

const EXAMPLE: &str = "\
Remove the cause first: an event that is refused again is parked again, with its followers.

Rows return under their own ids, before everything that followed them; the relay notices within one renewal of its
lease (a fifth of LEASE_MS) and sends them in order. Running it twice is harmless: a row is either parked or waiting.
Each event leaves a row in operator_actions.

Example:
  returnsctl outbox redrive --order 4711 --by j.doe --reason 'INC-7: max.message.bytes raised to 4 MiB'";

/// Put parked rows back into the outbox, in their old order, to be sent again.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
#[command(group(ArgGroup::new("scope").required(true)))]
pub(super) struct Args {
    /// Every parked row of this order.
    #[arg(long, value_name = "ID", group = "scope", value_parser = clap::value_parser!(i64).range(0..))]
    order: Option<i64>,

    /// Every parked row of this shard.
    #[arg(long, value_name = "N", group = "scope", value_parser = parse_shard)]
    shard: Option<Shard>,

    /// Every parked row there is when the command begins.
    #[arg(long, group = "scope")]
    all: bool,

    #[command(flatten)]
    operator: OperatorArgs,

    #[command(flatten)]
    session: SessionArgs,
}

/// A transaction is full at this many rows or keys, but takes at least one whole order: milliseconds of work.
const ROWS_PER_TRANSACTION: i64 = 500;
const KEYS_PER_TRANSACTION: usize = 200;

#[derive(Debug, Default, Serialize)]
struct Report {
    action: &'static str,
    redriven_rows: i64,
    redriven_orders: usize,
    /// Whether everything that was asked for is done.
    complete: bool,
}

pub(super) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    let scope = args.scope();
    let mut conn = args.session.connect().await?;
    let orders = redrive::parked_keys(&mut conn, &scope).await?;
    let mut report = Report {
        action: "redrive",
        ..Report::default()
    };
    let outcome = put_back_all(&mut conn, &orders, args.operator.because(), &mut report).await;
    report.complete = outcome.is_ok();
    // Also after a failure: some transactions may have been committed.
    report.tell(args.session.json)?;
    outcome?;
    Ok(match scope {
        Scope::Order(_) if report.redriven_rows == 0 => ExitCode::from(1),
        Scope::Order(_) | Scope::Shard(_) | Scope::All => ExitCode::SUCCESS,
    })
}

impl Args {
    fn scope(&self) -> Scope {
        match (self.order, self.shard) {
            (Some(order), _) => Scope::Order(order.to_string()),
            (None, Some(shard)) => Scope::Shard(shard),
            (None, None) => Scope::All,
        }
    }
}

async fn put_back_all(
    conn: &mut MySqlConnection,
    orders: &[ParkedKey],
    because: Because<'_>,
    report: &mut Report,
) -> Result<(), CtlError> {
    for group in groups(orders) {
        let shard = group[0].shard;
        let keys: Vec<String> = group.iter().map(|order| order.msg_key.clone()).collect();
        let put_back = retried(conn, async |conn| {
            put_back(conn, shard, &keys, because).await
        });
        let rows = match put_back.await.map_err(put_back_failed)? {
            PutBack::Done(rows) => i64::try_from(rows).unwrap_or(i64::MAX),
            PutBack::Disagreed => return Err(disagreed(shard)),
        };
        report.redriven_rows += rows;
        report.redriven_orders += if rows > 0 { keys.len() } else { 0 };
    }
    Ok(())
}

/// Cuts the orders, which come by shard, into transactions of one shard each.
fn groups(orders: &[ParkedKey]) -> Vec<&[ParkedKey]> {
    let mut groups = Vec::new();
    let mut rest = orders;
    while let Some(first) = rest.first() {
        let mut rows = 0;
        let fits = |(count, order): &(usize, &ParkedKey)| {
            rows += order.parked_rows;
            order.shard == first.shard
                && (*count == 0 || (rows <= ROWS_PER_TRANSACTION && *count < KEYS_PER_TRANSACTION))
        };
        let taken = rest.iter().enumerate().take_while(fits).count();
        let (group, others) = rest.split_at(taken);
        groups.push(group);
        rest = others;
    }
    groups
}

enum PutBack {
    Done(u64),
    /// The statements touched different numbers of rows; nothing was changed.
    Disagreed,
}

/// Puts back every parked row of the orders, and with it whatever was parked until the lease row was locked.
async fn put_back(
    conn: &mut MySqlConnection,
    shard: Shard,
    keys: &[String],
    because: Because<'_>,
) -> sqlx::Result<PutBack> {
    let rows = Parked::Orders(shard, keys);
    let mut tx = conn.begin().await?;
    store::lock_lease(&mut tx, shard).await?;
    let recorded = record_rows(&mut tx, Verb::Redrive, because, rows).await?;
    let copied = redrive::copy_back(&mut tx, rows).await?;
    let deleted = store::delete_parked(&mut tx, rows).await?;
    let raised = store::raise_redrive_gen(&mut tx, shard).await?;
    if copied != deleted || recorded != deleted || raised != 1 {
        tx.rollback().await?;
        return Ok(PutBack::Disagreed);
    }
    if deleted == 0 {
        // Somebody else was faster.
        tx.rollback().await?;
    } else {
        tx.commit().await?;
    }
    Ok(PutBack::Done(deleted))
}

fn disagreed(shard: Shard) -> CtlError {
    CtlError::Problem(format!(
        "the statements on shard {shard} touched different numbers of rows; that transaction was rolled back.\n\
         To do: see that nobody changes outbox_parked by hand, then run again"
    ))
}

fn put_back_failed(error: sqlx::Error) -> CtlError {
    match DbFailure::of(&error) {
        DbFailure::Duplicate { value, .. } => CtlError::Problem(format!(
            "row {value} (shard-id) is parked and waits in the outbox too; nothing of its transaction was changed.\n\
             To do: compare both with `returnsctl outbox peek`; if it is the same event, as after a restore, discard \
             the parked one, then run again"
        )),
        DbFailure::LockConflict
        | DbFailure::ConnectionLost
        | DbFailure::Unavailable
        | DbFailure::Other => error.into(),
    }
}

impl Report {
    fn tell(&self, json: bool) -> Result<(), CtlError> {
        if json {
            return output::print_json(self);
        }
        let done = match self.redriven_rows {
            0 => "nothing was parked, nothing was put back".to_owned(),
            rows => format!(
                "put back {} of {} under their own ids",
                counted(rows, "row"),
                counted(
                    i64::try_from(self.redriven_orders).unwrap_or(i64::MAX),
                    "order"
                )
            ),
        };
        output::print(&if self.complete {
            done
        } else {
            format!("before it failed: {done}; run again for the rest")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(of: &[(u8, i64)]) -> Vec<ParkedKey> {
        let order = |&(shard, parked_rows): &(u8, i64)| ParkedKey {
            shard: Shard(shard),
            msg_key: "1".to_owned(),
            parked_rows,
        };
        of.iter().map(order).collect()
    }

    #[test]
    fn a_transaction_holds_whole_orders_of_one_shard_and_is_bounded() {
        for (parked, sizes) in [
            (vec![], vec![]),
            (vec![(0, 1), (0, 1), (1, 1)], vec![2, 1]),
            (vec![(0, 499), (0, 1), (0, 1)], vec![2, 1]),
            (vec![(0, 9_000), (0, 1)], vec![1, 1]),
            (vec![(7, 1); 450], vec![200, 200, 50]),
        ] {
            let orders = orders(&parked);
            let found: Vec<usize> = groups(&orders).iter().map(|group| group.len()).collect();
            assert_eq!(found, sizes, "{parked:?}");
        }
    }
}
