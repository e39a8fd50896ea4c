//! What a database error means to the caller.

use std::error::Error;
use std::iter::successors;
use std::time::Duration;

use sqlx::mysql::MySqlDatabaseError;

/// What a caller can do about a database error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DbFailure {
    /// 1062. `key` is `table.index`; `value` is MySQL's rendering of the duplicate, columns joined by `-`.
    Duplicate { key: String, value: String },
    /// 1213 or 1205: roll back and run the whole transaction again. (1205 rolled back only the statement.)
    LockConflict,
    /// The outcome of the statement in flight is unknown.
    ConnectionLost,
    /// No connection or no response in time, or the server refuses writes: try later.
    Unavailable,
    /// A bug or a broken schema: do not retry.
    Other,
}

impl DbFailure {
    pub fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(cause) => match cause.try_downcast_ref::<MySqlDatabaseError>() {
                Some(mysql) => Self::of_number(mysql.number(), mysql.message()),
                None => Self::Other,
            },
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => {
                Self::ConnectionLost
            }
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => Self::Unavailable,
            _ => Self::Other,
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

    /// Numbers from the MySQL error reference.
    fn of_number(number: u16, message: &str) -> Self {
        match number {
            1062 => match parse_duplicate(message) {
                Some((value, key)) => Self::Duplicate { key, value },
                None => Self::Other,
            },
            1205 | 1213 | 3572 => Self::LockConflict,
            // Killed query or connection, shutdown in progress, server gone, idle session cut.
            1053 | 1317 | 1927 | 2006 | 2013 | 3169 | 4031 => Self::ConnectionLost,
            // Too many connections, read-only server, a statement's own time limit.
            1040 | 1203 | 1290 | 1792 | 1836 | 3024 => Self::Unavailable,
            _ => Self::Other,
        }
    }

    pub fn is_transient(&self) -> bool {
        match self {
            Self::LockConflict | Self::ConnectionLost | Self::Unavailable => true,
            Self::Duplicate { .. } | Self::Other => false,
        }
    }

    /// Stable metric label.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Duplicate { .. } => "duplicate",
            Self::LockConflict => "lock_conflict",
            Self::ConnectionLost => "connection_lost",
            Self::Unavailable => "unavailable",
            Self::Other => "other",
        }
    }
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
    #[error("the unit of work panicked")]
    Panicked,
}

impl DbError {
    pub fn failure(&self) -> DbFailure {
        match self {
            Self::Database(error) => DbFailure::of(error),
            Self::NoConnection(_) => DbFailure::Unavailable,
            Self::DeadlinePassed(_) => DbFailure::ConnectionLost,
            Self::Panicked => DbFailure::Other,
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
