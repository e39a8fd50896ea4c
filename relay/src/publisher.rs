//! Sending to Kafka in order: the trait [`Publish`], its types, and the implementation in [`kafka`].
//!
//! Order holds for three reasons: one task enqueues the records one after the other; producers are idempotent and treat a
//! gap as fatal (`enable.gapless.guarantee`); and the send mode changes only while nothing is in flight.
//! `FutureProducer::send` must not be used: it enqueues again after the queue was full, which reorders (rust-rdkafka
//! issue 468).

pub mod kafka;

use std::collections::HashSet;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use shared::domain::event::Envelope;
use shared::domain::ids::Shard;
use tokio::sync::mpsc::UnboundedSender;

use crate::pending::Pending;

/// Identifies a record in flight: its shard and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordId(usize);

const NUMBER_BITS: u32 = usize::BITS - 8;

impl RecordId {
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

/// What a producer reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryReport {
    /// Acknowledged, in the partition of this number.
    Delivered(RecordId, usize),
    Undelivered(RecordId, RDKafkaErrorCode),
    /// The producer cannot send any more.
    Fatal(RDKafkaErrorCode),
    /// No broker can be reached; the producer keeps trying.
    BrokersDown,
    /// The producer has lost its list of brokers and will not reconnect.
    BrokersForgotten,
}

/// Whether records wait for a batch to fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendMode {
    /// For less than one full read: each record is sent at once.
    Immediate,
    /// For a backlog: records wait a few milliseconds, so that batches fill.
    Batched,
}

/// Why a record was not enqueued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnqueueError {
    /// Enqueue the same record again before any other record of its return.
    QueueFull,
    TooLarge,
    Failed(RDKafkaErrorCode),
}

/// What the relay must know of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic {
    /// The size in bytes of the largest record that it accepts.
    pub limit: usize,
    pub partitions: usize,
}

/// Why a topic cannot be written to now. Rows wait until an operator has solved it; none is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicProblem {
    #[error(
        "Kafka accepts no topic of this name; `returnsctl outbox park --topic NAME --by NAME --reason TEXT` puts its rows aside"
    )]
    Illegal,
    #[error(
        "the topic does not exist: run `returnsctl topics`, or `returnsctl outbox park --topic NAME --by NAME --reason TEXT` if its name is wrong"
    )]
    Missing,
    #[error("Kafka refuses the right to write to the topic")]
    NotAuthorized,
    #[error("Kafka refuses the login")]
    LoginRefused,
    /// A broker responded, so this is about the topic.
    #[error("Kafka reports for the topic: {0:?}")]
    Unavailable(RDKafkaErrorCode),
    #[error("max.message.bytes of the topic is {0}, which is below the size of a batch")]
    LimitTooSmall(usize),
    #[error("Kafka does not respond: {0:?}")]
    BrokerAway(RDKafkaErrorCode),
}

impl TopicProblem {
    pub const CODES: [&str; 6] = [
        "topic_illegal",
        "topic_missing",
        "not_authorized",
        "topic_unavailable",
        "topic_limit",
        "broker_away",
    ];

    /// The code of a topic with partitions that acknowledge nothing.
    pub const PARTITION_STALLED: &'static str = "partition_stalled";

    /// Whether the rows of other topics can be sent all the same.
    pub fn is_of_topic(self) -> bool {
        match self {
            Self::Illegal
            | Self::Missing
            | Self::NotAuthorized
            | Self::Unavailable(_)
            | Self::LimitTooSmall(_) => true,
            Self::LoginRefused | Self::BrokerAway(_) => false,
        }
    }

    /// The problem of a topic that Kafka reports with the refusal of a record. `None`: the error is not about the topic.
    pub fn of_refusal(code: RDKafkaErrorCode) -> Option<Self> {
        match Self::of(code) {
            Self::BrokerAway(_) | Self::LoginRefused => None,
            problem => Some(problem),
        }
    }

    /// What Kafka's error code in the description of a topic means.
    fn in_description(code: RDKafkaErrorCode) -> Self {
        match Self::of(code) {
            Self::BrokerAway(code) => Self::Unavailable(code),
            problem => problem,
        }
    }

    fn of_error(error: &KafkaError) -> Self {
        Self::of(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))
    }

    /// What an error code of Kafka means.
    fn of(code: RDKafkaErrorCode) -> Self {
        use RDKafkaErrorCode as Code;
        match code {
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                Self::Missing
            }
            Code::InvalidTopic => Self::Illegal,
            Code::TopicAuthorizationFailed => Self::NotAuthorized,
            Code::ClusterAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication => Self::LoginRefused,
            code => Self::BrokerAway(code),
        }
    }

    /// Stable metric label.
    pub fn code(self) -> &'static str {
        match self {
            Self::Illegal => "topic_illegal",
            Self::Missing => "topic_missing",
            Self::NotAuthorized | Self::LoginRefused => "not_authorized",
            Self::Unavailable(_) => "topic_unavailable",
            Self::LimitTooSmall(_) => "topic_limit",
            Self::BrokerAway(_) => "broker_away",
        }
    }
}

/// The seam to the broker: a producer that can be destroyed, with everything in its queue, and replaced.
pub trait Publish: Send + 'static {
    /// Creates a new producer. `reports` receives a report about every record enqueued from now on.
    ///
    /// # Errors
    /// The settings contradict each other: a bug or bad configuration.
    fn connect(&mut self, reports: UnboundedSender<DeliveryReport>) -> Result<(), KafkaError>;

    /// Drops the producer and its queue. Every report has been sent when it returns.
    fn destroy(&mut self) -> impl Future<Output = ()> + Send;

    /// Enqueues a record behind those enqueued before in the same mode; does not wait. No order is kept between modes.
    ///
    /// # Errors
    /// Nothing was enqueued.
    fn enqueue(
        &self,
        event: &Pending,
        envelope: &Envelope<'_>,
        id: RecordId,
        mode: SendMode,
    ) -> Result<(), EnqueueError>;

    /// Asks Kafka for a topic.
    fn describe_topic(
        &self,
        topic: String,
    ) -> impl Future<Output = Result<Topic, TopicProblem>> + Send + 'static;

    /// Asks Kafka for the names of all topics that this client may see.
    fn list_topics(
        &self,
    ) -> impl Future<Output = Result<HashSet<String>, TopicProblem>> + Send + 'static;
}

/// Whether a delivery error is about the record itself. `InvalidTimestamp` is not: records carry this machine's time, so
/// it is about the clock and would park the whole outbox.
pub fn is_record_error(code: RDKafkaErrorCode) -> bool {
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
    fn a_record_id_holds_shard_and_number() {
        let id = RecordId::new(Shard(15), 1_234_567);
        assert_eq!((id.shard(), id.number()), (Shard(15), 1_234_567));
    }

    #[test]
    fn p3_problems_of_a_topic_have_different_codes_and_blame_no_record() {
        use RDKafkaErrorCode as Code;
        for (code, expected) in [
            (Code::UnknownTopicOrPartition, "topic_missing"),
            (Code::UnknownTopic, "topic_missing"),
            (Code::InvalidTopic, "topic_illegal"),
            (Code::TopicAuthorizationFailed, "not_authorized"),
            (Code::ClusterAuthorizationFailed, "not_authorized"),
            (Code::SaslAuthenticationFailed, "not_authorized"),
            (Code::Authentication, "not_authorized"),
            (Code::BrokerTransportFailure, "broker_away"),
            (Code::AllBrokersDown, "broker_away"),
            (Code::OperationTimedOut, "broker_away"),
            (Code::NotLeaderForPartition, "broker_away"),
        ] {
            assert_eq!(TopicProblem::of(code).code(), expected, "{code:?}");
            assert!(!is_record_error(code), "{code:?}");
        }
        for code in [Code::BrokerTransportFailure, Code::SaslAuthenticationFailed] {
            assert!(!TopicProblem::of(code).is_of_topic(), "{code:?}");
            assert_eq!(TopicProblem::of_refusal(code), None);
        }
        let leaderless = TopicProblem::in_description(Code::LeaderNotAvailable);
        assert!(leaderless.is_of_topic(), "a broker responded");
    }
}
