//! Status streams: each watched return with its last events, and the streams that follow it.
//!
//! Must stay true: a stream subscribes before it reads the rows, and it reads events that are not in memory from
//! `return_events`. So the hub may be late, but never causes a gap. The cost depends on the number of watched returns,
//! not on the traffic. Nothing here follows `return_events` by its `id`: ids are assigned before the commit, so an event
//! that is committed late would be missed.

mod change_poller;
mod event;
mod stream;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clap::Args;
use shared::domain::ids::ReturnId;
use shared::runtime::db::Database;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use self::change_poller::ChangePoller;
use self::event::StatusEvent;
pub(crate) use self::event::{StreamEnd, StreamStatus};
pub(crate) use self::stream::StreamStart;
use crate::metrics::Metrics;
use crate::quota::Quota;

/// Streams of events (`GET /returns/{id}/stream`).
#[derive(Debug, Clone, Args)]
pub struct StreamArgs {
    /// Streams open at once, of all callers; the next one gets 429, and 0 refuses them all. Unset: half of
    /// API_MAX_CONNECTIONS. It must be below that, because each stream holds a connection, and other requests need some
    /// too. Too low sends clients back to polling; too high costs memory and slows the poll for changes.
    #[arg(long, env = "STREAMS_MAX", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub streams_max: Option<u32>,

    /// Streams that one caller may have open. Too low refuses a person with many tabs; too high lets one caller use up
    /// STREAMS_MAX.
    #[arg(long, env = "STREAMS_PER_CALLER", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub streams_per_caller: u16,
}

/// What the streams of this process share. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    hub: Arc<Hub>,
    quota: Arc<Quota>,
    db: Database,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl Streams {
    /// At most `max` streams, which end at `stop`; with the task that polls for changes.
    pub(crate) fn new(
        args: &StreamArgs,
        max: u32,
        db: &Database,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> (Self, ChangePoller) {
        let hub = Arc::new(Hub::default());
        let poller = ChangePoller::new(db, Arc::clone(&hub), Arc::clone(&metrics));
        let streams = Self {
            hub,
            quota: Quota::new(
                usize::try_from(max).expect("bounded by the setting"),
                usize::from(args.streams_per_caller),
            ),
            db: db
                .share(db.max_connections() / 4)
                .acquire_timeout(ACQUIRE_TIMEOUT),
            metrics,
            stop,
        };
        (streams, poller)
    }
}

/// For a stream's read of a page of events. The stream sends no heartbeat meanwhile.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(1);
const READ_DEADLINE: Duration = Duration::from_secs(5);

/// Events of one return in memory, for streams that are slightly behind. Older ones are read from the rows.
const EVENTS_IN_MEMORY: usize = 8;

/// A watched return: the seq of its last event, and its last events.
#[derive(Debug)]
struct Known {
    seq: i32,
    events: VecDeque<StatusEvent>,
}

impl Known {
    fn add(&mut self, event: StatusEvent) {
        if self.events.len() == EVENTS_IN_MEMORY {
            self.events.pop_front();
        }
        self.seq = event.seq;
        self.events.push_back(event);
    }

    /// The events above `seq`; `None` if one of them is no longer in memory.
    fn above(&self, seq: i32) -> Option<Vec<StatusEvent>> {
        let newer = self.events.iter().filter(|event| event.seq > seq);
        let first_in_memory = self.events.front().map_or(self.seq + 1, |event| event.seq);
        (first_in_memory <= seq + 1).then(|| newer.cloned().collect())
    }
}

/// The returns that are watched now.
#[derive(Debug, Default)]
struct Hub {
    watched: Mutex<HashMap<ReturnId, watch::Sender<Known>>>,
    /// Notified when a return is watched. The poller pauses while no return is.
    begun: Notify,
}

impl Hub {
    /// Delivers events above `seq` from now on. The caller has read the return at `seq`.
    fn subscribe(&self, id: ReturnId, seq: i32) -> Subscription {
        let mut watched = self.lock();
        let known = watched.entry(id).or_insert_with(|| {
            watch::Sender::new(Known {
                seq,
                events: VecDeque::new(),
            })
        });
        let known = known.subscribe();
        self.begun.notify_one();
        Subscription { id, known }
    }

    /// The watched returns with the last known seq, in ascending order, because neighbors share pages of the index.
    /// Removes returns without a stream: streams subscribe under this lock, but end at any time.
    fn watched(&self) -> Vec<(ReturnId, i32)> {
        let mut watched = self.lock();
        watched.retain(|_, known| known.receiver_count() > 0);
        let mut known: Vec<_> = watched
            .iter()
            .map(|(id, known)| (*id, known.borrow().seq))
            .collect();
        known.sort_unstable();
        known
    }

    /// Delivers events. Those of one return are in ascending order.
    fn publish(&self, events: Vec<(ReturnId, StatusEvent)>) {
        let watched = self.lock();
        for (id, event) in events {
            if let Some(known) = watched.get(&id) {
                known.send_if_modified(|known| {
                    let is_new = event.seq > known.seq;
                    if is_new {
                        known.add(event);
                    }
                    is_new
                });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ReturnId, watch::Sender<Known>>> {
        self.watched
            .lock()
            .expect("nothing panics while it is held")
    }
}

/// One stream's subscription to its return.
#[derive(Debug)]
struct Subscription {
    id: ReturnId,
    known: watch::Receiver<Known>,
}

#[cfg(test)]
mod tests;
