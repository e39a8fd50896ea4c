//! Sends dead letters to Kafka as they were.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use shared::domain::dead_letter::{Headers, UNREADABLE_HEADER};
use shared::domain::event::header;
use shared::runtime::kafka::KafkaArgs;

use super::record::headers;
use crate::broker::Broker;
use crate::error::CtlError;
use crate::store::dead_letters::DeadLetter;

/// For the acknowledgement of one record.
const SEND_DEADLINE: Duration = Duration::from_secs(10);
/// Above every record that `dead_letters` can hold: the topic's own limit decides.
const MAX_RECORD_BYTES: usize = 40 * 1024 * 1024;

/// A producer, and what is known about the topics.
pub(super) struct Sender {
    broker: Broker,
    producer: FutureProducer,
    /// By topic; `None` for one that does not exist.
    partitions: HashMap<String, Option<usize>>,
}

/// Why a dead letter was not sent.
#[derive(Debug)]
pub(super) enum Unsent {
    /// It cannot be sent, for this reason; others can.
    Kept(String),
    /// No dead letter can be sent now.
    Failed(CtlError),
}

impl From<CtlError> for Unsent {
    fn from(error: CtlError) -> Self {
        Self::Failed(error)
    }
}

impl Sender {
    pub(super) fn new(args: &KafkaArgs) -> Result<Self, CtlError> {
        let producer = args
            .client("returnsctl")
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("message.timeout.ms", SEND_DEADLINE.as_millis().to_string())
            .set("message.max.bytes", MAX_RECORD_BYTES.to_string())
            .create()?;
        Ok(Self {
            broker: Broker::new(args)?,
            producer,
            partitions: HashMap::new(),
        })
    }

    /// Checks what a producer cannot: it waits for a topic that does not exist as it waits for a broker.
    ///
    /// # Errors
    /// The record cannot be sent as it was, or Kafka cannot be reached.
    pub(super) async fn check(&mut self, letter: &DeadLetter) -> Result<(), Unsent> {
        let row = &letter.summary;
        if row.reason == UNREADABLE_HEADER {
            return Err(Unsent::Kept(
                "its headers could not be read, so they were not kept whole: send it by hand (show --raw) or discard it"
                    .to_owned(),
            ));
        }
        // rdkafka panics on a name with a NUL. The refund consumer writes none: its client cuts names there.
        let sendable = |kept: Headers| !kept.iter().any(|(name, _)| name.contains('\0'));
        if !headers(letter).is_ok_and(sendable) {
            return Err(Unsent::Kept(
                "its headers are not as the refund consumer writes them: look at the row"
                    .to_owned(),
            ));
        }
        match (
            self.partitions(&row.topic).await?,
            usize::try_from(row.partition_id),
        ) {
            (None, _) => Err(Unsent::Kept(format!(
                "there is no topic {} any more",
                row.topic
            ))),
            (Some(count), Ok(partition)) if partition < count => Ok(()),
            (Some(count), _) => Err(Unsent::Kept(format!(
                "topic {} has {count} partitions, none with number {}",
                row.topic, row.partition_id
            ))),
        }
    }

    async fn partitions(&mut self, topic: &str) -> Result<Option<usize>, CtlError> {
        if let Some(known) = self.partitions.get(topic) {
            return Ok(*known);
        }
        let partitions = self.broker.partitions(topic).await?;
        self.partitions.insert(topic.to_owned(), partitions);
        Ok(partitions)
    }

    /// Sends a record and waits for its acknowledgement; answers its partition and offset.
    ///
    /// # Errors
    /// Kafka refuses the record, or cannot be reached; then it may still have taken the record.
    pub(super) async fn send(&self, letter: &DeadLetter) -> Result<(i32, i64), Unsent> {
        let row = &letter.summary;
        let from = format!("{}/{}/{}", row.topic, row.partition_id, row.offset_id);
        let kept = headers(letter)?;
        let mut headers = OwnedHeaders::new_with_capacity(kept.len() + 1);
        for (name, value) in &kept {
            headers = headers.insert(Header {
                key: name,
                value: value.as_ref(),
            });
        }
        headers = headers.insert(Header {
            key: header::REDRIVEN_FROM,
            value: Some(&from),
        });
        let record: FutureRecord<'_, [u8], [u8]> = FutureRecord {
            topic: &row.topic,
            partition: Some(row.partition_id),
            payload: letter.payload.as_deref(),
            key: letter.msg_key.as_deref(),
            // The broker's or the client's clock: the record's own time could be past the topic's retention.
            timestamp: None,
            headers: Some(headers),
        };
        let delivered = self.producer.send(record, SEND_DEADLINE).await;
        let delivery = delivered.map_err(|(error, _)| self.undelivered(error))?;
        Ok((delivery.partition, delivery.offset))
    }

    /// Some errors are about one record or its topic only.
    fn undelivered(&self, error: KafkaError) -> Unsent {
        let advice = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                "raise the topic's max.message.bytes: with the added header the record is larger than before"
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                "allow this user to write to the topic"
            }
            _ => return Unsent::Failed(CtlError::from(error).at(self.broker.address())),
        };
        Unsent::Kept(format!("Kafka does not take it ({error}): {advice}"))
    }
}
