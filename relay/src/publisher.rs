//! Sending to Kafka in the order given: trait [`Publish`] and its Kafka implementation.
//!
//! Order holds because records are enqueued one after the other by one task, producers are idempotent, a hole is fatal
//! (`enable.gapless.guarantee`), and another flow is begun only while nothing is in flight. `FutureProducer::send` is no
//! choice: it enqueues again when the queue was full and so reorders (rust-rdkafka issue 468).

mod kafka;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use shared::domain::ids::Shard;
use tokio::sync::mpsc::UnboundedSender;

use crate::pending::Pending;

pub use kafka::Kafka;

/// Names a record in flight: its shard and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token(usize);

const NUMBER_BITS: u32 = usize::BITS - 8;

impl Token {
    pub fn new(shard: Shard, number: usize) -> Self {
        Self(usize::from(shard.0) << NUMBER_BITS | number & (usize::MAX >> 8))
    }

    pub fn shard(self) -> Shard {
        Shard(u8::try_from(self.0 >> NUMBER_BITS).expect("eight bits are left"))
    }

    pub fn number(self) -> usize {
        self.0 & (usize::MAX >> 8)
    }
}

/// What a producer tells after a record was enqueued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    Delivered(Token),
    Undelivered(Token, RDKafkaErrorCode),
    /// The producer can send nothing more.
    Fatal(RDKafkaErrorCode),
    /// No broker can be reached; the producer goes on trying.
    BrokersDown,
    /// The producer knows no broker any more, and will not find one again.
    BrokersForgotten,
}

/// What comes out of the outbox: decides whether records wait for company.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Less than one read: each record is sent at once.
    Trickle,
    /// Read after full read: records wait a few milliseconds, so that batches fill.
    Backlog,
}

/// Why a record was not even enqueued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotEnqueued {
    /// Try the same record again, before any other of its return.
    QueueFull,
    TooLarge,
    Failed(RDKafkaErrorCode),
}

/// Why a topic cannot be written to now. Waiting and a person help; no record is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicTrouble {
    #[error("the topic does not exist: run `returnsctl topics`")]
    Missing,
    #[error("the login, or the right to write to the topic, is refused")]
    NotAuthorized,
    #[error("max.message.bytes of the topic is {0}, is below what a batch needs")]
    LimitTooSmall(usize),
    #[error("Kafka does not answer: {0:?}")]
    BrokerAway(RDKafkaErrorCode),
}

impl TopicTrouble {
    pub const CODES: [&str; 4] = [
        "topic_missing",
        "not_authorized",
        "topic_limit",
        "broker_away",
    ];

    fn of_error(error: &KafkaError) -> Self {
        Self::of(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))
    }

    /// What Kafka's answer about a topic means.
    fn of(code: RDKafkaErrorCode) -> Self {
        use RDKafkaErrorCode as Code;
        match code {
            Code::UnknownTopicOrPartition | Code::UnknownTopic => Self::Missing,
            Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication => Self::NotAuthorized,
            code => Self::BrokerAway(code),
        }
    }

    /// Stable metric label.
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing => "topic_missing",
            Self::NotAuthorized => "not_authorized",
            Self::LimitTooSmall(_) => "topic_limit",
            Self::BrokerAway(_) => "broker_away",
        }
    }
}

/// The seam to the broker: what is connected can be destroyed with all it holds, and replaced.
pub trait Publish: Send + 'static {
    /// Connects anew; `reports` is told about every record enqueued from now on.
    ///
    /// # Errors
    /// The settings do not fit together: a bug or bad configuration.
    fn connect(&mut self, reports: UnboundedSender<Report>) -> Result<(), KafkaError>;

    /// Drops the connection and all that is still held; every report has been sent when it returns.
    fn destroy(&mut self) -> impl Future<Output = ()> + Send;

    /// Enqueues a record behind those enqueued before in the same flow; does not wait. Between flows no order is kept.
    ///
    /// # Errors
    /// Nothing was enqueued.
    fn enqueue(
        &self,
        event: &Pending,
        epoch: i64,
        token: Token,
        flow: Flow,
    ) -> Result<(), NotEnqueued>;

    /// The bytes of the largest record that a topic takes.
    fn topic_limit(
        &self,
        topic: String,
    ) -> impl Future<Output = Result<usize, TopicTrouble>> + Send + 'static;
}

/// Whether a delivery failure says something about the record itself. `InvalidTimestamp` does not: records carry this
/// machine's time, so it is about the clock and would park the whole outbox.
pub fn is_about_the_record(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::MessageSizeTooLarge
            | Code::InvalidMessageSize
            | Code::InvalidRecord
            | Code::PolicyViolation
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_shard_and_number() {
        let token = Token::new(Shard(15), 1_234_567);
        assert_eq!((token.shard(), token.number()), (Shard(15), 1_234_567));
    }

    #[test]
    fn p3_trouble_with_a_topic_is_told_apart_and_no_record_is_to_blame() {
        use RDKafkaErrorCode as Code;
        for (code, expected) in [
            (Code::UnknownTopicOrPartition, "topic_missing"),
            (Code::UnknownTopic, "topic_missing"),
            (Code::TopicAuthorizationFailed, "not_authorized"),
            (Code::ClusterAuthorizationFailed, "not_authorized"),
            (Code::SaslAuthenticationFailed, "not_authorized"),
            (Code::Authentication, "not_authorized"),
            (Code::BrokerTransportFailure, "broker_away"),
            (Code::AllBrokersDown, "broker_away"),
            (Code::OperationTimedOut, "broker_away"),
            (Code::NotLeaderForPartition, "broker_away"),
        ] {
            assert_eq!(TopicTrouble::of(code).code(), expected, "{code:?}");
            assert!(!is_about_the_record(code), "{code:?}");
        }
    }
}
