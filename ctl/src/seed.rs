//! `returnsctl seed`: orders that may be returned, many and fast.
//!
//! Deterministic: an order's customer, total and day of delivery follow from its id. (The day counts back from today, so
//! that the order stays within the return window.) Ids start above the highest one, so a repeated run continues. The
//! orders are inserted in blocks of one transaction each; a run that fails leaves whole blocks, perhaps with a hole
//! between them.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use shared::domain::ids::{CustomerId, OrderId};
use shared::runtime::db::{DbArgs, DbFailure};
use sqlx::mysql::MySqlConnection;
use tokio::task::JoinSet;

use crate::error::CtlError;
use crate::output;
use crate::session::Session;
use crate::store::orders::{self as store, Buyers};

/// Insert delivered orders that are eligible for return; repeated runs continue after the highest id.
#[derive(Debug, clap::Args)]
#[command(mut_arg("database_max_connections", |arg| arg.hide(true)))]
pub(crate) struct Args {
    #[command(flatten)]
    db: DbArgs,

    /// The number of orders to insert.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=1_000_000_000))]
    orders: i64,

    /// Id of the first order. Default: one above the highest.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..=1_000_000_000_000))]
    first_id: Option<i64>,

    /// The customer of all these orders. Default: 42.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    customer: Option<i64>,

    /// Spread the orders over K customers instead: order i belongs to customer 1 + (i mod K).
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(i64).range(1..=1_000_000_000))]
    customers: Option<i64>,

    /// Connections that insert at the same time. More than the server's cores do not help.
    #[arg(long, value_name = "C", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    connections: u32,

    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// Rows per transaction. Large enough that the flush at COMMIT hardly counts, small enough that a failure loses little
/// and the undo log stays short.
const BLOCK: i64 = 20 * store::ROWS_PER_STATEMENT;
const PROGRESS_EVERY: Duration = Duration::from_secs(2);
const DEFAULT_CUSTOMER: CustomerId = CustomerId(42);

#[derive(Debug, Serialize)]
struct Report {
    orders: i64,
    first_id: OrderId,
    last_id: OrderId,
    secs: f64,
    rows_per_sec: f64,
}

/// Shared by the tasks that insert: the next free block, and the number of inserted orders.
struct Work {
    last: i64,
    next: AtomicI64,
    done: AtomicI64,
    buyers: Buyers,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let buyers = args.buyers()?;
    let session = Session::open(&args.db, args.connections).await?;
    session.check_schema().await?;
    let (first, last) = args.range(&session).await?;
    let began = Instant::now();
    insert(&session, first, last, buyers, args.connections).await?;
    let report = Report::new(first, last, began.elapsed());
    output::report(&report, args.json)?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn buyers(&self) -> Result<Buyers, CtlError> {
        match (self.customer, self.customers) {
            (None, None) => Ok(Buyers::One(DEFAULT_CUSTOMER)),
            (Some(id), None) => Ok(Buyers::One(CustomerId(id))),
            (None, Some(customers)) => Ok(Buyers::Many(customers)),
            (Some(_), Some(_)) => Err(CtlError::Usage(vec![
                "--customer and --customers contradict each other".to_owned(),
            ])),
        }
    }

    /// The ids to insert, first and last; none of them is taken.
    async fn range(&self, session: &Session) -> Result<(OrderId, OrderId), CtlError> {
        let first = match self.first_id {
            Some(id) => OrderId(id),
            None => {
                let highest =
                    session.read("highest_order", |conn| Box::pin(store::highest_order(conn)));
                OrderId(highest.await?.0 + 1)
            }
        };
        let last = OrderId(first.0 + self.orders - 1);
        let taken = session.read("orders_between", move |conn| {
            Box::pin(store::orders_between(conn, first, last))
        });
        match taken.await? {
            0 => Ok((first, last)),
            taken => Err(CtlError::Problem(format!(
                "{taken} of the ids {first} to {last} are taken.\n\
                 To do: leave out --first-id, then the run continues after the highest id"
            ))),
        }
    }
}

async fn insert(
    session: &Session,
    first: OrderId,
    last: OrderId,
    buyers: Buyers,
    connections: u32,
) -> Result<(), CtlError> {
    let work = Arc::new(Work {
        last: last.0,
        next: AtomicI64::new(first.0),
        done: AtomicI64::new(0),
        buyers,
    });
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        tasks.spawn(insert_blocks(session.clone(), Arc::clone(&work)));
    }
    let progress = tokio::spawn(show_progress(Arc::clone(&work), last.0 - first.0 + 1));
    let mut outcome = Ok(());
    while let Some(task) = tasks.join_next().await {
        let result = task.expect("inserting does not panic");
        if result.is_err() {
            // The others stop at the end of their block.
            work.next.store(i64::MAX, Ordering::Relaxed);
        }
        outcome = outcome.and(result);
    }
    progress.abort();
    output::progress("")?;
    outcome
}

async fn insert_blocks(session: Session, work: Arc<Work>) -> Result<(), CtlError> {
    while let Some((first, last)) = work.take_block() {
        let buyers = work.buyers;
        let inserted = session.transaction("insert_orders", move |conn| {
            Box::pin(async move {
                let inserted = insert_block(conn, first, last, buyers).await;
                inserted.map_err(not_inserted)
            })
        });
        inserted.await?;
        work.done.fetch_add(last - first + 1, Ordering::Relaxed);
    }
    Ok(())
}

async fn insert_block(
    conn: &mut MySqlConnection,
    first: i64,
    last: i64,
    buyers: Buyers,
) -> sqlx::Result<()> {
    let mut next = first;
    while next <= last {
        let end = last.min(next + store::ROWS_PER_STATEMENT - 1);
        store::insert_orders(conn, OrderId(next), OrderId(end), buyers).await?;
        next = end + 1;
    }
    Ok(())
}

impl Work {
    /// The next block's first and last id.
    fn take_block(&self) -> Option<(i64, i64)> {
        let taken = self
            .next
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                (next <= self.last).then(|| next + BLOCK)
            });
        taken
            .ok()
            .map(|first| (first, self.last.min(first + BLOCK - 1)))
    }
}

async fn show_progress(work: Arc<Work>, total: i64) {
    loop {
        tokio::time::sleep(PROGRESS_EVERY).await;
        let done = work.done.load(Ordering::Relaxed);
        let percent = done * 100 / total;
        // The result of the command does not depend on it.
        let _ = output::progress(&format!("{done} of {total} orders ({percent} %)"));
    }
}

fn not_inserted(error: sqlx::Error) -> CtlError {
    match DbFailure::of(&error) {
        DbFailure::Duplicate { value, .. } => CtlError::Problem(format!(
            "order {value} appeared meanwhile: another seed inserts the same ids.\n\
             To do: run again when it has ended; the blocks that were committed stay"
        )),
        _ => error.into(),
    }
}

impl Report {
    fn new(first_id: OrderId, last_id: OrderId, took: Duration) -> Self {
        let orders = last_id.0 - first_id.0 + 1;
        let secs = took.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rows_per_sec = orders as f64 / secs.max(f64::EPSILON);
        Self {
            orders,
            first_id,
            last_id,
            secs,
            rows_per_sec,
        }
    }
}

impl output::Report for Report {
    fn text(&self) -> String {
        format!(
            "Inserted orders {} to {}: {} rows in {:.2} s, {:.0} rows/s.",
            self.first_id, self.last_id, self.orders, self.secs, self.rows_per_sec
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_the_range_once() {
        let work = Work {
            last: 2 * BLOCK + 5,
            next: AtomicI64::new(3),
            done: AtomicI64::new(0),
            buyers: Buyers::Many(1),
        };
        let blocks: Vec<(i64, i64)> = std::iter::from_fn(|| work.take_block()).collect();
        assert_eq!(
            blocks,
            [
                (3, BLOCK + 2),
                (BLOCK + 3, 2 * BLOCK + 2),
                (2 * BLOCK + 3, 2 * BLOCK + 5)
            ]
        );
    }
}
