//! What a database error means to the caller.

use std::error::Error;
use std::iter::successors;
use std::time::Duration;

use sqlx::mysql::MySqlDatabaseError;

use super::numbers;

/// What a caller can do about a database error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DbFailure {
    /// 1062. `key` is `table.index`; `value` is MySQL's rendering of the duplicate, columns joined by `-`.
    Duplicate { key: String, value: String },
    /// 1213 or 1205: roll back and run the whole transaction again. (1205 rolled back only the statement.)
    LockConflict,
    /// The outcome of the statement in flight is unknown.
    ConnectionLost,
    /// The server takes no writes, as a primary does after a switchover: leave it, and try later.
    ReadOnly,
    /// The login or a right is refused: try later, because only a person can change that.
    Denied,
    /// No connection or no response in time, or the server cannot do it now: try later.
    Unavailable,
    /// The values of the row are refused: the same row fails again, others do not.
    Values,
    /// The statement does not fit the schema, or is wrong: it fails for every row until the schema or the program changes.
    Statement,
}

impl DbFailure {
    pub fn of(error: &sqlx::Error) -> Self {
        if let Some((number, message)) = mysql(error) {
            return Self::of_number(number, message);
        }
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed => Self::ConnectionLost,
            // What was read or written does not fit the code's types.
            sqlx::Error::RowNotFound
            | sqlx::Error::TypeNotFound { .. }
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Encode(_)
            | sqlx::Error::Decode(_)
            | sqlx::Error::InvalidArgument(_) => Self::Values,
            _ => Self::Unavailable,
        }
    }

    /// The failure of the database error that is `error` or one of its sources; `None` if there is none.
    pub fn in_chain(error: &(dyn Error + 'static)) -> Option<Self> {
        successors(Some(error), |&error| error.source()).find_map(|error| {
            error
                .downcast_ref::<DbError>()
                .map(DbError::failure)
                .or_else(|| error.downcast_ref::<sqlx::Error>().map(Self::of))
        })
    }

    fn of_number(number: u16, message: &str) -> Self {
        const DUPLICATE_ENTRY: u16 = 1062;
        match parse_duplicate(message).filter(|_| number == DUPLICATE_ENTRY) {
            Some((value, key)) => Self::Duplicate { key, value },
            None => numbers::failure(number),
        }
    }

    /// Whether the same may succeed later with neither the row nor the program changed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::LockConflict
            | Self::ConnectionLost
            | Self::ReadOnly
            | Self::Denied
            | Self::Unavailable => true,
            Self::Duplicate { .. } | Self::Values | Self::Statement => false,
        }
    }

    /// Whether it is about this row, so that another row may succeed.
    pub fn is_about_the_row(&self) -> bool {
        matches!(self, Self::Duplicate { .. } | Self::Values)
    }

    /// Whether it lasts until a person repairs an account or the schema.
    pub fn needs_a_person(&self) -> bool {
        matches!(self, Self::Denied | Self::Values | Self::Statement)
    }

    /// Stable metric label.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Duplicate { .. } => "duplicate",
            Self::LockConflict => "lock_conflict",
            Self::ConnectionLost => "connection_lost",
            Self::ReadOnly => "read_only",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::Values => "values",
            Self::Statement => "statement",
        }
    }
}

/// Number and text of an error that the server sent.
fn mysql(error: &sqlx::Error) -> Option<(u16, &str)> {
    let cause = error.as_database_error()?;
    let cause = cause.try_downcast_ref::<MySqlDatabaseError>()?;
    Some((cause.number(), cause.message()))
}

/// The number of MySQL's error that is `error` or one of its sources.
pub fn mysql_number(error: &(dyn Error + 'static)) -> Option<u16> {
    successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref::<sqlx::Error>().and_then(mysql))
        .map(|(number, _)| number)
}

/// Reads `Duplicate entry 'VALUE' for key 'TABLE.INDEX'`.
fn parse_duplicate(message: &str) -> Option<(String, String)> {
    let rest = message.strip_prefix("Duplicate entry '")?;
    let (value, key) = rest.rsplit_once("' for key '")?;
    Some((value.to_owned(), key.strip_suffix('\'')?.to_owned()))
}

/// Why a unit of work has no result.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    #[error("database")]
    Database(#[from] sqlx::Error),
    /// None became free, or none could be opened. The work did not begin.
    #[error("no connection to MySQL within {} ms", .0.as_millis())]
    NoConnection(Duration),
    /// A write may or may not have happened.
    #[error("no response from MySQL within {} ms", .0.as_millis())]
    DeadlinePassed(Duration),
    /// MySQL refused the login a moment ago, with this text. It is not asked again at once: some servers lock an account
    /// after a number of failures.
    #[error("MySQL refuses the login: {0}")]
    LoginRefused(String),
    #[error("the unit of work panicked")]
    Panicked,
}

impl DbError {
    pub fn failure(&self) -> DbFailure {
        match self {
            Self::Database(error) => DbFailure::of(error),
            Self::NoConnection(_) => DbFailure::Unavailable,
            Self::DeadlinePassed(_) => DbFailure::ConnectionLost,
            Self::LoginRefused(_) => DbFailure::Denied,
            // Whatever the work did with this row it would do again.
            Self::Panicked => DbFailure::Values,
        }
    }

    pub fn is_transient(&self) -> bool {
        self.failure().is_transient()
    }

    /// Stable metric label.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Database(error) => DbFailure::of(error).code(),
            Self::NoConnection(_) => "no_connection",
            Self::DeadlinePassed(_) => "deadline",
            Self::LoginRefused(_) => "denied",
            Self::Panicked => "panicked",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duplicate_is_known_by_its_key() {
        assert_eq!(
            DbFailure::of_number(
                1062,
                "Duplicate entry 'a' for key 'b-7' for key 'returns.one_open_return_per_order'"
            ),
            DbFailure::Duplicate {
                key: "returns.one_open_return_per_order".to_owned(),
                value: "a' for key 'b-7".to_owned()
            }
        );
    }

    #[test]
    fn a_database_error_is_found_among_the_sources() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] DbError);
        let silent = Outer(DbError::DeadlinePassed(Duration::ZERO));
        assert_eq!(
            DbFailure::in_chain(&silent),
            Some(DbFailure::ConnectionLost)
        );
        let timed_out = Outer(DbError::Database(sqlx::Error::PoolTimedOut));
        assert_eq!(
            DbFailure::in_chain(&timed_out),
            Some(DbFailure::Unavailable)
        );
        assert_eq!(DbFailure::in_chain(&std::fmt::Error), None);
    }
}
