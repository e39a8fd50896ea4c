//! All SQL of this crate; each statement names the function it belongs to.
//!
//! Batch statements take their rows as one JSON text through `JSON_TABLE`, so that one text serves every size,
//! and start at that list with the index forced: with statistics taken while a table was small, `WHERE id IN (…)`
//! becomes a scan that waits for other sessions' uncommitted rows.

mod attempts;
mod claims;
mod oldest;
mod scans;
mod traces;

use sqlx::MySqlConnection;
use uuid::Uuid;

pub use attempts::{
    Due, GiveBack, TakeOver, mark_sent, read_earlier, read_order, release, take_over,
};
pub use claims::{
    Filing, NewAttempts, OrderLock, insert_attempts, insert_dead_letter, insert_inbox, lock_orders,
    orders_with_open_return, read_filings, read_inbox,
};
pub use oldest::{Gauges, Oldest, Range, Standstill, oldest, read_gauges};
pub use scans::{
    DueKind, Foreign, Page, Waiting, count_attempts, count_dead_letters, due_attempts,
    expire_inbox, foreign_attempts, waiting_returns,
};

pub use traces::{Traces, read_traces};

use crate::error::Error;

/// Attempts of `refunds AS f` that the gateway of this name may carry on; the name is bound once. An attempt belongs to the
/// account that it may have been sent to: only that account knows whether it paid.
const OURS: &str =
    "(f.gateway IS NULL OR f.gateway = ? OR (f.state = 'claimed' AND f.first_sent_at IS NULL))";

/// Paid attempts of `refunds AS f` that the gateway of this name can be asked about; the name is bound once. Without the
/// provider's reference people have marked them as paid.
const PAID_BY_US: &str = "f.gateway = ? AND f.gateway_ref IS NOT NULL";

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
