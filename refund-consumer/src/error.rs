//! What can go wrong in this crate, by what the caller can do about it.

use rdkafka::error::KafkaError;
use shared::domain::transition::TransitionError;
use shared::runtime::db::{DbError, mysql_number};
use shared::runtime::program::NotReady;
use shared::runtime::schema::SchemaError;
use shared::runtime::tasks::TaskError;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Transient or not: [`Error::is_transient`] asks the database error.
    #[error("database")]
    Database(#[from] DbError),
    #[error("the change was refused")]
    Refused(#[source] TransitionError),
    #[error("{table}: wrote {wrote} rows of {expected}: a row changed under its lock")]
    RowCount {
        table: &'static str,
        expected: u64,
        wrote: u64,
    },
    #[error("a stored value cannot be read: {0}")]
    Unreadable(&'static str),
    #[error("the database cannot be used")]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    NotReady(#[from] NotReady),
    #[error("Kafka")]
    Kafka(#[from] KafkaError),
    /// Another member of the group has the same name.
    #[error("another consumer uses CONSUMER_INSTANCE_ID {0}: give each consumer its own")]
    Fenced(String),
    #[error("{0} ended early")]
    TaskEnded(&'static str),
    #[error(transparent)]
    Task(#[from] TaskError),
    #[error("bad setting: {0}")]
    Setting(String),
    #[error("cannot use SIMULATED_LEDGER {path}")]
    Ledger {
        path: String,
        source: std::io::Error,
    },
    #[error("cannot set up TLS for the gateway")]
    Tls(#[source] reqwest::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl From<TransitionError> for Error {
    fn from(error: TransitionError) -> Self {
        match error {
            TransitionError::Database(error) => error.into(),
            other => Self::Refused(other),
        }
    }
}

impl Error {
    /// Whether running the whole transaction again may help, sooner or later. A schema or a right that a person has to
    /// repair fails every row alike, so it is waited for: no row is put aside because of it.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Database(error) => !error.failure().is_about_the_row(),
            Self::Refused(_)
            | Self::RowCount { .. }
            | Self::Unreadable(_)
            | Self::Schema(_)
            | Self::NotReady(_)
            | Self::Kafka(_)
            | Self::Fenced(_)
            | Self::TaskEnded(_)
            | Self::Task(_)
            | Self::Setting(_)
            | Self::Ledger { .. }
            | Self::Tls(_) => false,
        }
    }

    /// Whether another transaction holds a row that we do not wait for.
    pub fn is_held(&self) -> bool {
        const NOWAIT: u16 = 3572;
        mysql_number(self) == Some(NOWAIT)
    }
}
