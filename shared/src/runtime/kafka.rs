//! The settings that all Kafka clients share, and their log.

mod client_log;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::{ClientConfig, Statistics};

pub use self::client_log::ClientLog;

/// The address of Kafka.
#[derive(Debug, Clone, clap::Args)]
pub struct KafkaArgs {
    /// Bootstrap servers, `host:port` separated by commas.
    #[arg(long, env = "KAFKA_BROKERS", value_parser = parse_brokers)]
    pub kafka_brokers: String,
}

impl KafkaArgs {
    /// The configuration that all clients of this system share.
    pub fn client(&self, client_id: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.kafka_brokers)
            .set("client.id", client_id)
            .set("socket.keepalive.enable", "true")
            .set("allow.auto.create.topics", "false")
            // Reconnect to a broker that is back within a second, not after the default ten.
            .set("reconnect.backoff.max.ms", "1000")
            .set_log_level(RDKafkaLogLevel::Warning);
        config
    }
}

/// The `statistics.interval.ms` of a client whose statistics [`has_forgotten_brokers`] checks.
pub const WATCH_INTERVAL_MS: &str = "1000";

/// Whether a client knows no broker any more. It will never reach one again and must be replaced.
///
/// A broker that stops or starts may return metadata without any broker. librdkafka then forgets all of them, also those
/// of `bootstrap.servers`, and never recovers (at least 2.10 to 2.13:
/// <https://github.com/confluentinc/librdkafka/issues/5301>).
pub fn has_forgotten_brokers(statistics: &Statistics) -> bool {
    !statistics
        .brokers
        .values()
        .any(|broker| matches!(broker.source.as_str(), "learned" | "configured"))
}

fn parse_brokers(text: &str) -> Result<String, String> {
    let valid = |broker: &str| {
        broker.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0)
        })
    };
    if text.split(',').all(valid) {
        Ok(text.to_owned())
    } else {
        Err("expected host:port[,host:port…]".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_host_and_port() {
        assert!(parse_brokers("a:9092,b:9093").is_ok());
        for bad in ["", "a", "a:", ":9092", "a:0", "a:9092,", "a:99999"] {
            assert!(parse_brokers(bad).is_err(), "{bad}");
        }
    }
}
