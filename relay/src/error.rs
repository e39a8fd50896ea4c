//! Why the relay ends, and why it replaces its producer.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use shared::runtime::schema::SchemaError;
use shared::runtime::tasks::TaskError;

/// Why the relay does not start, or ends before it is stopped.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("the database cannot be used")]
    Schema(#[from] SchemaError),
    #[error("{0}")]
    Settings(String),
    #[error("a Kafka producer cannot be created")]
    Producer(#[from] KafkaError),
    /// A task that the pump depends on has ended.
    #[error("the {0} ended before it was stopped")]
    TaskEnded(&'static str),
    #[error(transparent)]
    Task(#[from] TaskError),
}

/// Why the producer must be replaced. The reaction is always the same: a new producer, and every owned shard is read
/// again from 0.
#[derive(Debug, thiserror::Error)]
pub enum RestartCause {
    #[error("a record was not delivered: {0:?}")]
    Undelivered(RDKafkaErrorCode),
    #[error("the producer reported a fatal error: {0:?}")]
    Fatal(RDKafkaErrorCode),
    #[error("the producer has lost its list of brokers")]
    BrokersForgotten,
    #[error("a lease was lost with records in flight")]
    LeaseLost,
    #[error("a shard could not be flushed before its hand-over deadline")]
    HandOverLate,
}

impl RestartCause {
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
