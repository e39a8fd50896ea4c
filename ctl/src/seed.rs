//! `returnsctl seed`: orders that may be returned, many and fast.
//!
//! Deterministic: an order's customer, total and day of delivery follow from its id (the day counts back from
//! today, so that the order stays within the return window). Ids are taken above the highest one, so a repeated run
//! continues. The work is cut into blocks of one transaction each; a run that fails leaves whole blocks and
//! perhaps a hole between them.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use shared::domain::ids::{CustomerId, OrderId};
use shared::runtime::db::{DbArgs, DbFailure};
use shared::runtime::schema;
use sqlx::Connection;
use sqlx::mysql::MySqlPool;
use tokio::task::JoinSet;

use crate::error::CtlError;
use crate::{output, server, store};

/// Insert delivered orders that are eligible for return; repeated runs continue after the highest id.
#[derive(Debug, clap::Args)]
#[command(mut_arg("database_max_connections", |arg| arg.hide(true)))]
pub(crate) struct Args {
    #[command(flatten)]
    db: DbArgs,

    /// How many orders to insert.
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

    /// Connections that insert at the same time. More than the server has cores does not help.
    #[arg(long, value_name = "C", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    connections: u32,

    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// Whose the orders are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Buyers {
    One(CustomerId),
    /// Order i belongs to customer 1 + (i mod this).
    Many(i64),
}

/// Rows per transaction. Large enough that the commit's flush does not count, small enough that a failure loses
/// little and the undo log stays short.
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

/// What the inserting tasks share: the next free block, and how far they are.
struct Work {
    last: i64,
    next: AtomicI64,
    done: AtomicI64,
    buyers: Buyers,
}

pub(crate) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    let buyers = args.buyers()?;
    server::reach(&args.db).await?;
    let mut db = args.db.clone();
    db.database_max_connections = args.connections;
    let pool = db
        .pool()
        .map_err(|problem| CtlError::Usage(vec![problem]))?;
    schema::check(&shared::runtime::db::Database::unmetered(
        (*pool.connect_options()).clone(),
        1,
    ))
    .await?;
    let (first, last) = args.range(&pool).await?;
    let began = Instant::now();
    insert(&pool, first, last, buyers, args.connections).await?;
    let report = Report::new(first, last, began.elapsed());
    report.tell(args.json)?;
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
    async fn range(&self, pool: &MySqlPool) -> Result<(OrderId, OrderId), CtlError> {
        let mut conn = pool.acquire().await?;
        let first = match self.first_id {
            Some(id) => OrderId(id),
            None => OrderId(store::highest_order(&mut conn).await?.0 + 1),
        };
        let last = OrderId(first.0 + self.orders - 1);
        match store::orders_between(&mut conn, first, last).await? {
            0 => Ok((first, last)),
            taken => Err(CtlError::Problem(format!(
                "{taken} of the ids {first} to {last} are taken.\n\
                 To do: leave out --first-id, then the run continues after the highest id"
            ))),
        }
    }
}

async fn insert(
    pool: &MySqlPool,
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
        tasks.spawn(insert_blocks(pool.clone(), Arc::clone(&work)));
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
    if std::io::stderr().is_terminal() {
        output::progress("", true)?;
    }
    outcome.map_err(insert_failed)
}

async fn insert_blocks(pool: MySqlPool, work: Arc<Work>) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    loop {
        let Some((first, last)) = work.take_block() else {
            return Ok(());
        };
        let mut tx = conn.begin().await?;
        let mut next = first;
        while next <= last {
            let end = last.min(next + store::ROWS_PER_STATEMENT - 1);
            store::insert_orders(&mut tx, OrderId(next), OrderId(end), work.buyers).await?;
            next = end + 1;
        }
        tx.commit().await?;
        work.done.fetch_add(last - first + 1, Ordering::Relaxed);
    }
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
    let terminal = std::io::stderr().is_terminal();
    loop {
        tokio::time::sleep(PROGRESS_EVERY).await;
        let done = work.done.load(Ordering::Relaxed);
        let percent = done * 100 / total;
        let _ = output::progress(&format!("{done} of {total} orders ({percent} %)"), terminal);
    }
}

fn insert_failed(error: sqlx::Error) -> CtlError {
    match DbFailure::of(&error) {
        DbFailure::Duplicate { value, .. } => CtlError::Problem(format!(
            "order {value} appeared while this ran: another seed works on the same ids.\n\
             To do: run again when it has ended; the blocks that were committed stay"
        )),
        DbFailure::LockConflict
        | DbFailure::ConnectionLost
        | DbFailure::Unavailable
        | DbFailure::Other => error.into(),
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

    fn tell(&self, json: bool) -> Result<(), CtlError> {
        if json {
            return output::print_json(self);
        }
        output::print(&format!(
            "orders {} to {} inserted: {} rows in {:.2} s, {:.0} rows/s",
            self.first_id, self.last_id, self.orders, self.secs, self.rows_per_sec
        ))
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
