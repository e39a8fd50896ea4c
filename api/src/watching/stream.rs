//! One stream: what its client has been sent, what comes next, and when it ends.
//!
//! A task of its own writes into a channel of one chunk that the response's body reads: a client that does not read
//! holds up its own task, which holds no events meanwhile.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use shared::auth::{Caller, Request};
use shared::domain::ids::ReturnId;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::{StatusEvent, Subscription, Watching, event};
use crate::auth::Credential;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::slots::Slot;
use crate::store::status_events;

/// Proxies commonly close a connection that is silent for 60 s, some for 30 s.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// After rows could not be read, or nobody could tell whether the client may hear them.
const RETRY: Duration = Duration::from_secs(1);

/// Where a stream begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    /// The return as it was read before.
    pub(crate) version: i32,
    pub(crate) is_final: bool,
    /// `Last-Event-ID`: the client has everything up to this.
    pub(crate) last_seen: Option<i32>,
}

impl Start {
    /// Events above this are sent: without `Last-Event-ID` the last one is the first. A client of an open return that
    /// knows more than the rows do knew rows that a restored backup has not: it hears where the return stands now.
    fn above(&self) -> i32 {
        match self.last_seen {
            Some(seen) if seen <= self.version || self.is_final => seen,
            Some(_) | None => self.version - 1,
        }
    }
}

/// Who watches, and what allowed it.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) credential: Credential,
    pub(crate) request: Request,
}

impl Watching {
    /// The text of a stream that begins at `start`.
    ///
    /// # Errors
    /// [`ApiError::TooManyStreams`].
    pub(crate) fn stream(
        &self,
        id: ReturnId,
        start: Start,
        caller: &Caller,
        watcher: Watcher,
    ) -> Result<impl Stream<Item = Result<Bytes, Infallible>> + use<>, ApiError> {
        let slot = self.slots.take(caller.user).map_err(|full| {
            self.metrics.streams.refused(full);
            ApiError::TooManyStreams
        })?;
        let (out, mut body) = mpsc::channel(1);
        let stream = Following {
            // Before any row is read: a change after the reading is told, one before it is read.
            subscription: self.hub.subscribe(id, start.version),
            watching: self.clone(),
            watcher,
            sent: start.above(),
            at_least: start.version,
            is_final: start.is_final,
            out,
            _open: Open::new(slot, &self.metrics),
        };
        tokio::spawn(stream.run());
        Ok(futures_util::stream::poll_fn(move |cx| {
            body.poll_recv(cx).map(|chunk| chunk.map(Ok))
        }))
    }
}

struct Following {
    subscription: Subscription,
    watching: Watching,
    watcher: Watcher,
    /// The seq of the last event that was sent.
    sent: i32,
    /// The return has events up to this, whether or not the hub has heard.
    at_least: i32,
    is_final: bool,
    out: mpsc::Sender<Bytes>,
    _open: Open,
}

/// An open stream's slot, counted.
struct Open {
    metrics: Arc<Metrics>,
    _slot: Slot,
}

impl Open {
    fn new(slot: Slot, metrics: &Arc<Metrics>) -> Self {
        metrics.streams.open.inc();
        Self {
            metrics: Arc::clone(metrics),
            _slot: slot,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.streams.open.dec();
    }
}

/// Why a stream ends by itself.
enum Ended {
    Final,
    Unauthorized,
    /// When the client comes again it is let in by the keys of then, or not.
    OtherKeys,
    /// Its client.
    Gone,
}

/// Whether everything was sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    CaughtUp,
    /// It has to be tried again.
    Behind,
}

impl Following {
    /// Without an `end` at `stop`: the client comes again, to another process, and goes on where it was.
    async fn run(mut self) {
        let (stop, out) = (self.watching.stop.clone(), self.out.clone());
        tokio::select! {
            () = stop.cancelled() => {}
            () = out.closed() => {}
            () = self.run_to_end() => {}
        }
    }

    async fn run_to_end(&mut self) {
        let reason = match self.follow().await {
            Err(Ended::Final) => "final",
            Err(Ended::Unauthorized) => "unauthorized",
            Err(Ended::OtherKeys | Ended::Gone) => return,
            Ok(never) => match never {},
        };
        let _ = self.send(event::end(reason)).await;
    }

    async fn follow(&mut self) -> Result<Infallible, Ended> {
        let mut beat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.send(event::RETRY).await?;
        loop {
            let progress = self.catch_up().await?;
            tokio::select! {
                _ = self.subscription.known.changed(), if progress == Progress::CaughtUp => {}
                () = sleep(RETRY), if progress == Progress::Behind => {}
                _ = beat.tick() => {
                    self.may_hear()?;
                    self.send(event::HEARTBEAT).await?;
                }
            }
        }
    }

    /// Sends what there is to send.
    async fn catch_up(&mut self) -> Result<Progress, Ended> {
        while let Some(missing) = self.missing() {
            let events = match missing {
                Missing::Held(events) => events,
                Missing::InRows => self.read().await,
            };
            // A revoked token hears nothing more, also before the heartbeat that ends it.
            if events.is_empty() || !self.may_hear()? {
                return Ok(Progress::Behind);
            }
            self.tell(&events).await?;
        }
        if self.is_final {
            return Err(Ended::Final);
        }
        Ok(Progress::CaughtUp)
    }

    fn missing(&mut self) -> Option<Missing> {
        let known = self.subscription.known.borrow_and_update();
        if self.sent >= known.seq.max(self.at_least) {
            return None;
        }
        let held = known.above(self.sent).filter(|events| !events.is_empty());
        Some(held.map_or(Missing::InRows, Missing::Held))
    }

    /// A page of the rows; empty when they cannot be read now.
    async fn read(&self) -> Vec<StatusEvent> {
        let (id, sent) = (self.subscription.id, self.sent);
        let reading = self
            .watching
            .lane
            .query(move |conn| Box::pin(status_events::read_page(conn, id, sent)));
        reading.await.unwrap_or_else(|error| {
            // There may be thousands of streams, and each tries again.
            tracing::debug!(%error, "a stream cannot read its return's events");
            Vec::new()
        })
    }

    /// Whether the client may hear of its return now. `false` while nobody can tell.
    fn may_hear(&self) -> Result<bool, Ended> {
        let Watcher {
            credential,
            request,
        } = &self.watcher;
        if credential.is_outdated() {
            return Err(Ended::OtherKeys);
        }
        match credential.still_allows(request) {
            Some(true) => Ok(true),
            Some(false) => Err(Ended::Unauthorized),
            None => Ok(false),
        }
    }

    async fn tell(&mut self, events: &[StatusEvent]) -> Result<(), Ended> {
        let Some(last) = events.last() else {
            return Ok(());
        };
        let mut text = BytesMut::new();
        for event in events {
            text.extend_from_slice(&event.frame);
        }
        self.send(text.freeze()).await?;
        self.sent = last.seq;
        // Nothing leads out of a final state, also if what is told of it cannot be read.
        self.is_final |= last.is_final;
        let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
        self.watching.metrics.streams.events.inc_by(count);
        Ok(())
    }

    async fn send(&self, text: Bytes) -> Result<(), Ended> {
        self.out.send(text).await.map_err(|_| Ended::Gone)
    }
}

/// Where the events that a client lacks are.
enum Missing {
    Held(Vec<StatusEvent>),
    InRows,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_begins_at_the_last_event_or_where_it_broke_off() {
        let above = |is_final, last_seen| {
            let version = 4;
            Start {
                version,
                is_final,
                last_seen,
            }
            .above()
        };
        for (is_final, last_seen, expected) in [
            (false, None, 3),
            (true, None, 3),
            (false, Some(0), 0),
            (false, Some(4), 4),
            (false, Some(5), 3),
            (true, Some(4), 4),
            (true, Some(5), 5),
        ] {
            assert_eq!(
                above(is_final, last_seen),
                expected,
                "{is_final} {last_seen:?}"
            );
        }
    }
}
