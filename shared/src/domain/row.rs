//! How a column becomes a type of ours.

use std::error::Error;
use std::str::FromStr;

use sqlx::Row;
use sqlx::mysql::MySqlRow;

/// The enum whose name a text column holds.
///
/// # Errors
/// [`sqlx::Error::ColumnDecode`] for a name that this version does not know; sqlx's own error for a missing column or
/// another type.
pub fn decode_enum<T>(row: &MySqlRow, column: &str) -> sqlx::Result<T>
where
    T: FromStr<Err: Into<Box<dyn Error + Send + Sync>>>,
{
    let name: String = row.try_get(column)?;
    name.parse().map_err(|error| unreadable(column, error))
}

/// The error for a column whose value is not one of ours.
pub(crate) fn unreadable(
    column: &str,
    source: impl Into<Box<dyn Error + Send + Sync>>,
) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: source.into(),
    }
}
