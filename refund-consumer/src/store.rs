//! All SQL of this crate; each statement names the function it belongs to.
//!
//! Batch statements take their rows as one JSON text through `JSON_TABLE`, so that one text serves every size,
//! and start at that list with the index forced: with statistics taken while a table was small, `WHERE id IN (…)`
//! becomes a scan that waits for other sessions' uncommitted rows.

mod attempts;
mod claims;
mod oldest;
mod scans;

use sqlx::MySqlConnection;
use uuid::Uuid;

pub use attempts::{Due, TakeOver, add_refunds, mark_sent, read_earlier, release, take_over};
pub use claims::{
    Filing, NewAttempts, OrderLock, insert_attempts, insert_dead_letter, insert_inbox, lock_orders,
    read_filings, read_inbox,
};
pub use oldest::{Gauges, Oldest, Range, Standstill, oldest, read_gauges};
pub use scans::{Page, Waiting, due_attempts, expire_inbox, waiting_returns};

use crate::error::Error;

/// `BINARY(16)` as text, for `UNHEX`.
fn hex(id: Uuid) -> String {
    id.simple().to_string()
}

/// Checks that a batch write hit every row.
pub(crate) fn expect_rows(table: &'static str, expected: usize, wrote: u64) -> Result<(), Error> {
    let expected = u64::try_from(expected).unwrap_or(u64::MAX);
    if wrote == expected {
        Ok(())
    } else {
        Err(Error::RowCount {
            table,
            expected,
            wrote,
        })
    }
}

/// A connection inside a transaction, or one of its own for a single statement.
type Conn = MySqlConnection;
