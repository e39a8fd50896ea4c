//! The whole system at one moment: every queue, the programs that work on it, and what waits for a person.
//!
//! It is read in parts, each within [`WITHIN`]. A part that cannot be read says why and hides no other one. `status`
//! shows one overview, `top` one after the other.

mod alerts;
mod collector;
mod errors;
mod lines;
mod metrics;
mod part;
mod rates;
mod sources;
mod waits;

use std::time::Duration;

use serde::Serialize;
use shared::domain::event::TopicArgs;

pub(crate) use self::alerts::{Alert, AlertState};
pub(crate) use self::collector::Collector;
pub(crate) use self::errors::SeenError;
pub(crate) use self::lines::Line;
pub(crate) use self::metrics::Scrape;
pub(crate) use self::part::Part;
pub(crate) use self::rates::Rates;
pub(crate) use self::sources::SourceArgs;
pub(crate) use self::waits::Waiting;
use crate::consumer_group::GroupState;
use crate::store::findings::Findings;
use crate::store::queues::StateCount;
use crate::store::shards::{Measured, Relay, ShardCounts, ShardHead};
use crate::waiting::Urgency;

/// For each part; they are read at the same time.
pub(crate) const WITHIN: Duration = Duration::from_secs(4);

/// See the module. The names are those of `--json`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Overview {
    /// Of `status`, and of a script that reads this.
    pub(crate) exit_code: u8,
    pub(crate) taken_at: String,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) outbox: Part<Outbox>,
    /// Apart from `outbox`, because it counts every row.
    pub(crate) outbox_counts: Part<Vec<ShardCounts>>,
    pub(crate) work: Part<Work>,
    pub(crate) consumers: Part<Consumers>,
    /// The programs whose addresses are known.
    pub(crate) programs: Vec<Program>,
    /// `None` if no Prometheus is configured.
    pub(crate) alerts: Option<Part<Vec<Alert>>>,
    /// Between the last two overviews.
    pub(crate) rates: Rates,
    /// Newest first.
    pub(crate) errors: Vec<SeenError>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outbox {
    pub(crate) shards: Vec<ShardHead>,
    pub(crate) relays: Vec<Relay>,
    /// `None` if no api has measured yet.
    pub(crate) measured: Option<Measured>,
    pub(crate) parked_events: i64,
    pub(crate) parked_orders: i64,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Work {
    pub(crate) returns: Vec<StateCount>,
    pub(crate) refunds: Vec<StateCount>,
    pub(crate) oldest_dead_letter_secs: Option<f64>,
    #[serde(flatten)]
    pub(crate) findings: Findings,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Consumers {
    /// `None` if there is no such topic.
    pub(crate) group: Option<GroupState>,
    /// All topics of the cluster, to tell which are missing.
    #[serde(skip)]
    pub(crate) topics: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Program {
    pub(crate) address: String,
    pub(crate) metrics: Part<Scrape>,
}

impl Overview {
    /// Fills in what follows from the parts.
    pub(crate) fn find_waiting(&mut self, topics: &TopicArgs) {
        self.waiting = waits::of(self, topics);
        self.exit_code = self.exit();
    }

    /// As of `doctor`: 1 if something stands still, else 2 if a part is unknown, else 3 if something waits for a person.
    fn exit(&self) -> u8 {
        let has = |urgency| self.waiting.iter().any(|one| one.urgency == urgency);
        if has(Urgency::Stuck) {
            1
        } else if self.has_trouble() {
            2
        } else if has(Urgency::Person) {
            3
        } else {
            0
        }
    }

    fn has_trouble(&self) -> bool {
        self.outbox.trouble.is_some()
            || self.outbox_counts.trouble.is_some()
            || self.work.trouble.is_some()
            || self.consumers.trouble.is_some()
            || self
                .programs
                .iter()
                .any(|program| program.metrics.trouble.is_some())
            || self
                .alerts
                .as_ref()
                .is_some_and(|alerts| alerts.trouble.is_some())
    }
}
