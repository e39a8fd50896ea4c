//! The log of a Kafka client. During an outage librdkafka reports dozens of lines a second. Here an outage is one line when
//! it begins, one a minute while it lasts, and one when it ends. Any other kind of line appears once a minute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::Statistics;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::runtime::tasks::{Outage, Rarely};

/// Use it in the callbacks of one client, with `statistics.interval.ms`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ClientLog(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    outage: Outage,
    /// What the client reported last about a connection.
    reason: String,
    /// The client reported that it reaches no broker, and none was connected since.
    all_down: bool,
    /// A connection failed since the last statistics.
    one_failed: bool,
    kinds: HashMap<String, Rarely>,
}

/// Why no broker can be reached, in the client's words.
#[derive(Debug, thiserror::Error)]
#[error("no broker can be reached: {0}")]
struct NoBroker(String);

impl Default for ClientLog {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            outage: Outage::new("the connection to Kafka"),
            reason: String::new(),
            all_down: false,
            one_failed: false,
            kinds: HashMap::new(),
        })))
    }
}

impl ClientLog {
    /// A line of librdkafka's own log.
    pub fn line(&self, facility: &str, message: &str) {
        tracing::debug!(facility, "librdkafka: {message}");
        match facility {
            // It warns about deliberate settings at every new client.
            "CONFWARN" => {}
            "FAIL" | "ERROR" | "REQTMOUT" => self.lock().connection_failed(message),
            _ => self.lock().rare(facility, message),
        }
    }

    /// An error that the client reported.
    pub fn error(&self, error: &KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka client");
        let mut state = self.lock();
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => state.all_down = true,
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut,
            ) if reason.is_empty() => state.one_failed = true,
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut,
            ) => state.connection_failed(reason),
            _ => state.rare(&error.to_string(), reason),
        }
    }

    /// The client's statistics show whether a broker is connected.
    pub fn statistics(&self, statistics: &Statistics) {
        let mut brokers = statistics.brokers.values();
        let is_connected = brokers.any(|broker| broker.state == "UP");
        self.lock().refresh(is_connected);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn connection_failed(&mut self, reason: &str) {
        reason.clone_into(&mut self.reason);
        self.one_failed = true;
    }

    fn refresh(&mut self, is_connected: bool) {
        let one_failed = std::mem::take(&mut self.one_failed);
        if is_connected {
            self.all_down = false;
            self.outage.ended();
            if one_failed {
                let reason = std::mem::take(&mut self.reason);
                self.rare("a connection to Kafka failed", &reason);
            }
        } else if self.all_down {
            self.outage.failed(&NoBroker(self.reason.clone()));
        }
    }

    fn rare(&mut self, kind: &str, message: &str) {
        let line = self.kinds.entry(kind.to_owned()).or_default();
        if let Some(left_out) = line.due() {
            tracing::warn!(kind, left_out, "Kafka client: {message}");
        }
    }
}
