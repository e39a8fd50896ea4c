//! `returnsctl outbox redrive`
//!
//! Rows return under their own `(shard, id)`: the order of a return's events is the order of their ids. All rows of one
//! order return in one transaction, never some of them: while any is parked, the relay parks every further row of that
//! order too, and the reason of the first would be lost. Many orders return in several transactions, so that no lease
//! row is locked for long: its relay could not renew meanwhile.

use std::process::ExitCode;
use std::sync::Arc;

use clap::ArgGroup;
use serde::Serialize;
use shared::domain::ids::Shard;
use shared::domain::trace_context::TraceContext;
use shared::runtime::db::DbFailure;
use shared::runtime::trace::{self, SpanKind};
use sqlx::mysql::MySqlConnection;

use super::shard::parse_shard;
use crate::error::CtlError;
use crate::operator::OperatorArgs;
use crate::output;
use crate::session::{Session, SessionArgs};
use crate::store::actions::{Author, Subject, Verb, record};
use crate::store::leases::{lock_lease, raise_redrive_gen};
use crate::store::parked::{
    ParkedKey, ParkedRows, Scope, copy_back, delete_parked, parked_keys, parked_traces,
    set_parked_traces,
};
use crate::text::counted;

const HELP: &str = "\
Remove the cause first: an event that Kafka refuses again is parked again, with its followers.

Rows return under their own ids, before all rows that followed them. The relay notices within one renewal of its lease \
(a fifth of LEASE_MS) and sends them in order. It is safe to run this twice: a row is either parked or waiting. Each \
event adds a row to operator_actions.

Example:
  returnsctl outbox redrive --order 4711 --by j.doe \\
    --reason 'INC-7: max.message.bytes raised to 4 MiB'";

/// Put parked rows back into the outbox, in their old order, to be sent again.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
#[command(group(ArgGroup::new("scope").required(true)))]
pub(super) struct Args {
    /// Every parked row of this order.
    #[arg(long, value_name = "ID", group = "scope", value_parser = clap::value_parser!(i64).range(0..))]
    order: Option<i64>,

    /// Every parked row of this shard.
    #[arg(long, value_name = "N", group = "scope", value_parser = parse_shard)]
    shard: Option<Shard>,

    /// Every row that is parked when the command begins.
    #[arg(long, group = "scope")]
    all: bool,

    /// Only say how many rows and orders would be put back; change nothing.
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    operator: OperatorArgs,

    #[command(flatten)]
    session: SessionArgs,
}

/// A transaction holds at most this many rows or keys, but at least one whole order: milliseconds of work.
const ROWS_PER_TRANSACTION: i64 = 500;
const KEYS_PER_TRANSACTION: usize = 200;

#[derive(Debug, Default, Serialize)]
struct Report {
    action: &'static str,
    /// Nothing was changed: the numbers are of what would be put back.
    dry_run: bool,
    redriven_rows: i64,
    redriven_orders: usize,
    /// `true` if every row in the scope was put back.
    complete: bool,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let scope = Arc::new(args.scope());
    let session = args.session.connect().await?;
    let wanted = Arc::clone(&scope);
    let orders = session.read("parked_keys", move |conn| {
        Box::pin(async move { parked_keys(conn, &wanted).await })
    });
    let orders = orders.await?;
    let mut report = Report {
        action: "redrive",
        dry_run: args.dry_run,
        ..Report::default()
    };
    let author = Arc::new(args.operator.author());
    let outcome = if args.dry_run {
        report.count(&orders);
        Ok(())
    } else {
        put_back_all(&session, &orders, &author, &mut report).await
    };
    report.complete = outcome.is_ok() && !args.dry_run;
    output::progress("")?;
    // Also after a failure: some transactions may have been committed.
    output::report(&report, args.session.json)?;
    outcome?;
    Ok(match *scope {
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
    session: &Session,
    orders: &[ParkedKey],
    author: &Arc<Author>,
    report: &mut Report,
) -> Result<(), CtlError> {
    for group in groups(orders) {
        let shard = group[0].shard;
        let keys: Arc<[String]> = group.iter().map(|order| order.msg_key.clone()).collect();
        let (count, author) = (keys.len(), Arc::clone(author));
        let rows = session.transaction("redrive_rows", move |conn| {
            let (keys, author) = (Arc::clone(&keys), Arc::clone(&author));
            Box::pin(async move { put_back(conn, shard, &keys, &author).await })
        });
        let rows = i64::try_from(rows.await?).unwrap_or(i64::MAX);
        report.redriven_rows += rows;
        report.redriven_orders += if rows > 0 { count } else { 0 };
        output::progress(&format!(
            "{} of {} put back",
            report.redriven_orders,
            counted(orders.len(), "order")
        ))?;
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

/// Puts back every parked row of the orders, including rows that were parked until the lease row was locked. Answers how
/// many; none if another operator was faster.
async fn put_back(
    conn: &mut MySqlConnection,
    shard: Shard,
    keys: &[String],
    author: &Author,
) -> Result<u64, CtlError> {
    let rows = ParkedRows::Orders(shard, keys);
    lock_lease(conn, shard).await?;
    let recorded = record(conn, Verb::RedriveRows, author, Subject::Parked(rows)).await?;
    if recorded.rows == 0 {
        return Ok(0);
    }
    begin_traces(conn, shard, rows).await?;
    let copied = copy_back(conn, rows).await.map_err(not_copied)?;
    let deleted = delete_parked(conn, rows).await?;
    let raised = raise_redrive_gen(conn, shard).await?;
    if (copied, deleted, raised) == (recorded.rows, recorded.rows, 1) {
        Ok(deleted)
    } else {
        Err(disagreed(shard))
    }
}

/// Each event gets a trace that leads to its old one, which may have ended days ago; unless that one is not recorded.
async fn begin_traces(
    conn: &mut MySqlConnection,
    shard: Shard,
    rows: ParkedRows<'_>,
) -> Result<(), CtlError> {
    if !trace::is_on() {
        return Ok(());
    }
    let begin = |(id, before): (i64, TraceContext)| {
        let begun = trace::span(SpanKind::Internal, Verb::RedriveRows.as_str());
        let span = begun.linked_to([&before]).start();
        span.is_recorded().then(|| (id, span.context().clone()))
    };
    let before = parked_traces(conn, rows).await?;
    let traces: Vec<_> = before.into_iter().filter_map(begin).collect();
    match set_parked_traces(conn, shard, &traces).await? {
        changed if usize::try_from(changed) == Ok(traces.len()) => Ok(()),
        _ => Err(disagreed(shard)),
    }
}

fn disagreed(shard: Shard) -> CtlError {
    CtlError::Problem(format!(
        "the statements on shard {shard} changed different numbers of rows; that transaction was rolled back.\n\
         To do: see that nobody changes outbox_parked by hand, then run again"
    ))
}

fn not_copied(error: sqlx::Error) -> CtlError {
    match DbFailure::of(&error) {
        DbFailure::Duplicate { value, .. } => CtlError::Problem(format!(
            "row {value} (shard-id) is parked and waits in the outbox too; its transaction was rolled back.\n\
             To do: compare both with `returnsctl outbox peek`; if they are the same event, as after a restored backup, \
             discard the parked one, then run again"
        )),
        _ => error.into(),
    }
}

impl Report {
    fn count(&mut self, orders: &[ParkedKey]) {
        self.redriven_orders = orders.len();
        self.redriven_rows = orders.iter().map(|order| order.parked_rows).sum();
    }
}

impl output::Report for Report {
    fn text(&self) -> String {
        if self.dry_run {
            return format!(
                "Would put back {} of {}; nothing was changed.",
                counted(self.redriven_rows, "row"),
                counted(self.redriven_orders, "order")
            );
        }
        let done = match self.redriven_rows {
            0 => "No parked rows, nothing was put back.".to_owned(),
            rows => format!(
                "Put back {} of {} under their own ids.",
                counted(rows, "row"),
                counted(self.redriven_orders, "order")
            ),
        };
        if self.complete {
            done
        } else {
            format!("Before the failure: {done} Run again for the rest.")
        }
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
