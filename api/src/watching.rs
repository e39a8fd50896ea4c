//! Who watches which return, told of each change in the order of its seq.
//!
//! Must stay true: a stream is subscribed before it reads the rows, and what it needs and is not held here it reads from
//! `return_events`: so the hub may only ever be late, never the reason for a gap. Cost follows the returns that are
//! watched, not the traffic. Nothing here tails `return_events` by its `id`: ids are given before the commit, so a
//! late one would be missed.

mod event;
mod lookout;
mod stream;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use shared::domain::ids::ReturnId;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use self::event::StatusEvent;
pub(crate) use self::lookout::Lookout;
pub(crate) use self::stream::{Start, Watcher};
use crate::config::Config;
use crate::lane::Lane;
use crate::metrics::Metrics;
use crate::slots::Slots;

/// What streams of this process share.
#[derive(Debug, Clone)]
pub struct Watching {
    hub: Arc<Hub>,
    slots: Arc<Slots>,
    lane: Lane,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

/// The place where streams are opened, and the task that looks for changes. Streams end at `stop`.
pub(crate) fn open(
    cfg: &Config,
    options: MySqlConnectOptions,
    pool: &MySqlPool,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> (Watching, Lookout) {
    let hub = Arc::new(Hub::default());
    let lookout = Lookout::new(options, Arc::clone(&hub), Arc::clone(&metrics));
    let watching = Watching {
        hub,
        slots: Slots::new(
            usize::try_from(cfg.streams_max()).expect("bounded by the setting"),
            usize::from(cfg.streams.streams_per_caller),
        ),
        lane: Lane::quarters(1, pool, TURN_DEADLINE, READ_DEADLINE),
        metrics,
        stop,
    };
    (watching, lookout)
}

/// For a turn to read a page of rows, and for reading it. No heartbeat is sent meanwhile.
const TURN_DEADLINE: Duration = Duration::from_secs(1);
const READ_DEADLINE: Duration = Duration::from_secs(5);

/// Events of one return held for streams that are a moment behind. What is older is read from the rows.
pub(crate) const HELD: usize = 8;

/// What is known of a watched return: the seq of its last event, and the last few events.
#[derive(Debug)]
struct Known {
    seq: i32,
    events: VecDeque<StatusEvent>,
}

impl Known {
    fn add(&mut self, event: StatusEvent) {
        if self.events.len() == HELD {
            self.events.pop_front();
        }
        self.seq = event.seq;
        self.events.push_back(event);
    }

    /// The events above `seq`; `None` if one of them is no longer held.
    fn above(&self, seq: i32) -> Option<Vec<StatusEvent>> {
        let news = self.events.iter().filter(|event| event.seq > seq);
        let first_held = self.events.front().map_or(self.seq + 1, |event| event.seq);
        (first_held <= seq + 1).then(|| news.cloned().collect())
    }
}

/// The returns that are watched now.
#[derive(Debug, Default)]
struct Hub {
    watched: Mutex<HashMap<ReturnId, watch::Sender<Known>>>,
    /// Told when a return is watched: the lookout rests while none is.
    begun: Notify,
}

impl Hub {
    /// Events above `seq` will be told from now on; the caller has read the return at `seq`.
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

    /// What is watched, with the seq up to which it is known, ascending: neighbors share pages of the index. Forgets what
    /// nobody watches any more: receivers come under this lock, and go whenever they like.
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

    /// Events of a return ascend.
    fn publish(&self, events: Vec<(ReturnId, StatusEvent)>) {
        let watched = self.lock();
        for (id, event) in events {
            if let Some(known) = watched.get(&id) {
                known.send_if_modified(|known| {
                    let is_news = event.seq > known.seq;
                    if is_news {
                        known.add(event);
                    }
                    is_news
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

/// One stream's place at the hub.
#[derive(Debug)]
struct Subscription {
    id: ReturnId,
    known: watch::Receiver<Known>,
}

#[cfg(test)]
mod tests;
