//! All SQL of this crate; each statement names the function it belongs to.
//!
//! Grouped statements take their rows as one JSON text through `JSON_TABLE`, so that one text serves every size,
//! and start at that list with the index forced: with statistics taken while a table was small, `WHERE id IN (…)`
//! becomes a scan that waits for other sessions' uncommitted rows.

mod attempts;
mod claims;
mod scans;

use sqlx::mysql::MySqlRow;
use sqlx::{MySqlConnection, Row};
use time::OffsetDateTime;
use time::macros::format_description;
use uuid::Uuid;

pub use attempts::{
    Due, Earlier, TakeOver, add_refunds, lock_attempts, mark_sent, read_earlier, release,
    take_over, update_attempts,
};
pub use claims::{
    Filing, NewAttempts, OrderLock, insert_attempts, insert_dead_letter, insert_inbox, lock_orders,
    read_filings, read_inbox,
};
pub use scans::{
    Census, DueKind, Page, Standstill, Waiting, due_attempts, expire_inbox, take_census,
    waiting_returns,
};

use crate::error::Error;

/// `DATETIME(6)` as text: what a JSON list can carry.
fn datetime(at: OffsetDateTime) -> String {
    at.to_offset(time::UtcOffset::UTC)
        .format(format_description!(
            "[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:6]"
        ))
        .expect("every component is present in an OffsetDateTime")
}

/// `BINARY(16)` as text, for `UNHEX`.
fn hex(id: Uuid) -> String {
    id.simple().to_string()
}

/// Checks that a grouped write hit every row.
fn expect_rows(table: &'static str, expected: usize, wrote: u64) -> Result<(), Error> {
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

fn money(row: &MySqlRow, amount: &str) -> Result<shared::domain::money::Money, Error> {
    let currency: String = row.try_get("currency")?;
    let currency = shared::domain::money::Currency::parse(&currency)
        .map_err(|_| Error::Unreadable("currency"))?;
    Ok(shared::domain::money::Money::new(
        row.try_get(amount)?,
        currency,
    ))
}

/// A connection inside a transaction, or one of its own for a single statement.
type Conn = MySqlConnection;
