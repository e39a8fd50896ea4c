//! Follows a topic and records when each event first arrived.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shared::domain::ids::EventId;
use tokio::task::JoinHandle;

use super::{Topics, until};

type Arrivals = Arc<Mutex<HashMap<String, Instant>>>;

/// Reads a topic until it is dropped.
pub(crate) struct Follower {
    arrivals: Arrivals,
    task: JoinHandle<()>,
}

impl Follower {
    pub(super) fn start(topics: &Topics, topic: &str) -> Self {
        let consumer = topics.consumer(&[topic]);
        let arrivals = Arrivals::default();
        let noted = Arc::clone(&arrivals);
        let task = tokio::spawn(async move {
            loop {
                let message = consumer.recv().await.expect("a record");
                let event_id = super::Record::of(&message).event_id().to_owned();
                let mut noted = noted.lock().expect("not poisoned");
                noted.entry(event_id).or_insert_with(Instant::now);
            }
        });
        Self { arrivals, task }
    }

    /// How many of these events have not arrived yet.
    pub(crate) fn missing(&self, committed: &[(EventId, Instant)]) -> usize {
        let arrivals = self.arrivals.lock().expect("not poisoned");
        let missing = |(id, _): &&(EventId, Instant)| !arrivals.contains_key(&id.to_string());
        committed.iter().filter(missing).count()
    }

    /// The time from each event's COMMIT, on the writer's clock, to its arrival. Waits for the last event.
    pub(crate) async fn latencies(&self, committed: &[(EventId, Instant)]) -> Latencies {
        until("every event has arrived", || async {
            self.missing(committed) == 0
        })
        .await;
        let arrivals = self.arrivals.lock().expect("not poisoned");
        let latency = |(id, at): &(EventId, Instant)| {
            arrivals[&id.to_string()].saturating_duration_since(*at)
        };
        let mut sorted: Vec<Duration> = committed.iter().map(latency).collect();
        sorted.sort_unstable();
        Latencies(sorted)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ascending.
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(crate) fn worst(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |percent: usize| self.0.get(self.0.len() * percent / 100);
        write!(
            f,
            "n {}, p50 {:?}, p99 {:?}, worst {:?}",
            self.0.len(),
            at(50).unwrap_or(&Duration::ZERO),
            at(99).unwrap_or(&Duration::ZERO),
            self.worst()
        )
    }
}
