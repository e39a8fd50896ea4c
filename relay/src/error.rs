//! Why the relay cannot go on, and why one unit of database work failed.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use shared::runtime::db::DbFailure;
use shared::runtime::schema::SchemaError;

/// Why the relay does not start or ends before it is told to.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("the schema cannot be used")]
    Schema(#[from] SchemaError),
    #[error("{0}")]
    Settings(String),
    #[error("a Kafka producer cannot be created")]
    Producer(#[from] KafkaError),
    #[error("the {0} ended although nobody stopped it")]
    TaskEnded(&'static str),
}

/// Why a unit of database work gave no result.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("database")]
    Database(#[from] sqlx::Error),
    #[error("no answer from MySQL within {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("the unit of work panicked")]
    Panicked,
}

impl StoreError {
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Database(error) => DbFailure::of(error).is_transient(),
            Self::Silent(_) => true,
            Self::Panicked => false,
        }
    }

    pub fn code(&self) -> &'static str {
        match self {
            Self::Database(error) => match DbFailure::of(error) {
                DbFailure::Duplicate { .. } => "duplicate",
                DbFailure::LockConflict => "lock_conflict",
                DbFailure::ConnectionLost => "connection_lost",
                DbFailure::Unavailable => "unavailable",
                DbFailure::Other => "other",
            },
            Self::Silent(_) => "silent",
            Self::Panicked => "panicked",
        }
    }
}

/// Why the producer must be destroyed. There is one answer to all of them: a new producer, and every shard that is
/// still owned read from 0.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("a record was not delivered: {0:?}")]
    Undelivered(RDKafkaErrorCode),
    #[error("the producer reported a fatal error: {0:?}")]
    Fatal(RDKafkaErrorCode),
    #[error("the producer has forgotten all brokers")]
    BrokersForgotten,
    #[error("a lease was lost with records in flight")]
    LeaseLost,
    #[error("a shard to be handed over could not be flushed in time")]
    HandOverLate,
}

impl Failure {
    /// Every [`code`](Self::code).
    pub const CODES: [&str; 5] = [
        "undelivered",
        "fatal",
        "brokers_forgotten",
        "lease_lost",
        "hand_over_late",
    ];

    /// Stable metric label.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Undelivered(_) => "undelivered",
            Self::Fatal(_) => "fatal",
            Self::BrokersForgotten => "brokers_forgotten",
            Self::LeaseLost => "lease_lost",
            Self::HandOverLate => "hand_over_late",
        }
    }
}
