//! What a span says about the Kafka record that it sends or processes.

use std::fmt::Display;

use opentelemetry::KeyValue;

use super::{clipped, names};

/// `operation`: `send` or `process`. The key is a stranger's text.
pub fn attributes(
    operation: &'static str,
    topic: &str,
    partition: impl Display,
    key: Option<&str>,
) -> impl Iterator<Item = KeyValue> {
    let key = key.map(|key| KeyValue::new(names::MESSAGING_KAFKA_MESSAGE_KEY, clipped(key)));
    [
        KeyValue::new(names::MESSAGING_SYSTEM, "kafka"),
        KeyValue::new(names::MESSAGING_OPERATION_NAME, operation),
        KeyValue::new(names::MESSAGING_OPERATION_TYPE, operation),
        KeyValue::new(names::MESSAGING_DESTINATION_NAME, topic.to_owned()),
        KeyValue::new(
            names::MESSAGING_DESTINATION_PARTITION_ID,
            partition.to_string(),
        ),
    ]
    .into_iter()
    .chain(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record's key has no limit, and a span must not take the memory of a thousand.
    #[test]
    fn a_long_key_is_clipped() {
        let key = "ä".repeat(1_000_000);
        let all: Vec<KeyValue> = attributes("send", "topic", 3, Some(&key)).collect();
        let last = all.last().expect("six of them");
        assert_eq!(last.key.as_str(), names::MESSAGING_KAFKA_MESSAGE_KEY);
        assert_eq!(last.value.as_str().chars().count(), 256);
    }
}
