//! One stream: what its client has received, what comes next, and when it ends.
//!
//! A task of its own writes into a channel of one chunk, and the response's body reads it. A client that does not read
//! blocks only its own task, which keeps no events in memory meanwhile.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use shared::domain::ids::ReturnId;
use shared::runtime::db::DbError;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::{READ_DEADLINE, StatusEvent, Streams, Subscription, event};
use crate::auth::Grant;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::quota::QuotaPermit;
use crate::store;

/// Proxies commonly close a connection that is silent for 60 s, some for 30 s.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often the permission of a client that does not read is checked. Each check costs an evaluation of the policy.
const UNREAD_CHECK: Duration = Duration::from_secs(5);
/// For the last event of a client that may not receive any more.
const END_DEADLINE: Duration = Duration::from_secs(1);
/// After the rows could not be read, or the policy could not be evaluated.
const RETRY: Duration = Duration::from_secs(1);

/// Where a stream begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamStart {
    /// Of the return when it was read.
    pub(crate) version: i32,
    pub(crate) is_final: bool,
    /// `Last-Event-ID`: the client has all events up to this one.
    pub(crate) last_seen: Option<i32>,
}

impl StreamStart {
    /// Events above this are sent. Without `Last-Event-ID` the stream begins with the last event. If a client of an open
    /// return knows a later event than the rows have, a backup was restored: the client gets the present status.
    fn above(&self) -> i32 {
        match self.last_seen {
            Some(seen) if seen <= self.version || self.is_final => seen,
            Some(_) | None => self.version - 1,
        }
    }
}

impl Streams {
    /// Opens a stream that begins at `start`; returns its text.
    ///
    /// # Errors
    /// [`ApiError::TooManyStreams`].
    pub(crate) fn open(
        &self,
        id: ReturnId,
        start: StreamStart,
        grant: Grant,
    ) -> Result<impl Stream<Item = Result<Bytes, Infallible>> + use<>, ApiError> {
        let permit = self.quota.acquire(grant.holder()).map_err(|exceeded| {
            let refused = &self.metrics.streams.refused;
            refused.with_label_values(&[exceeded.code()]).inc();
            ApiError::TooManyStreams
        })?;
        let (out, mut body) = mpsc::channel(1);
        let stream = Following {
            // Before any row is read: later changes are delivered, earlier ones are read.
            subscription: self.hub.subscribe(id, start.version),
            streams: self.clone(),
            grant,
            sent: start.above(),
            at_least: start.version,
            is_final: start.is_final,
            out,
            _open: Open::new(permit, &self.metrics),
        };
        tokio::spawn(stream.run());
        Ok(futures_util::stream::poll_fn(move |cx| {
            body.poll_recv(cx).map(|chunk| chunk.map(Ok))
        }))
    }
}

struct Following {
    subscription: Subscription,
    streams: Streams,
    /// Checked again before each send and at each heartbeat.
    grant: Grant,
    /// The seq of the last event that was sent.
    sent: i32,
    /// The return has events up to this one, even if the hub does not have them yet.
    at_least: i32,
    is_final: bool,
    out: mpsc::Sender<Bytes>,
    _open: Open,
}

/// Counts an open stream, and holds its permit.
struct Open {
    metrics: Arc<Metrics>,
    _permit: QuotaPermit,
}

impl Open {
    fn new(permit: QuotaPermit, metrics: &Arc<Metrics>) -> Self {
        metrics.streams.open.inc();
        Self {
            metrics: Arc::clone(metrics),
            _permit: permit,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.streams.open.dec();
    }
}

/// Why a stream ends.
enum Ended {
    Final,
    Unauthorized,
    /// The client reconnects and is authenticated with the new keys.
    OtherKeys,
    ClientDisconnected,
}

/// Whether everything was sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    CaughtUp,
    /// To be retried.
    Behind,
}

impl Following {
    /// At `stop` no `end` is sent: the client reconnects to another process and resumes.
    async fn run(mut self) {
        let (stop, out) = (self.streams.stop.clone(), self.out.clone());
        tokio::select! {
            () = stop.cancelled() => {}
            () = out.closed() => {}
            () = self.run_to_end() => {}
        }
    }

    async fn run_to_end(&mut self) {
        match self.follow().await {
            Err(Ended::Final) => {
                let _ = self.send(event::end("final")).await;
            }
            Err(Ended::Unauthorized) => {
                // Only a client that reads gets it: the others must not hold their place meanwhile.
                let _ = timeout(END_DEADLINE, self.out.send(event::end("unauthorized"))).await;
            }
            Err(Ended::OtherKeys | Ended::ClientDisconnected) => {}
            Ok(never) => match never {},
        }
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
                    self.may_receive()?;
                    self.send(event::HEARTBEAT).await?;
                }
            }
        }
    }

    /// Sends the events that the client does not have yet.
    async fn catch_up(&mut self) -> Result<Progress, Ended> {
        while let Some(missing) = self.missing() {
            let events = match missing {
                Missing::InMemory(events) => events,
                Missing::InRows => self.read().await,
            };
            // Checked before each send, so that a revoked token receives nothing more.
            if events.is_empty() || !self.may_receive()? {
                return Ok(Progress::Behind);
            }
            self.send_events(&events).await?;
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
        let in_memory = known.above(self.sent).filter(|events| !events.is_empty());
        Some(in_memory.map_or(Missing::InRows, Missing::InMemory))
    }

    /// A page of the rows; empty if they cannot be read now.
    async fn read(&self) -> Vec<StatusEvent> {
        let (id, sent) = (self.subscription.id, self.sent);
        let db = &self.streams.db;
        let rows = db.run("read_status_page", READ_DEADLINE, move |conn| {
            Box::pin(async move {
                let rows = store::read_page(conn, id, sent).await;
                rows.map_err(DbError::from)
            })
        });
        match rows.await {
            Ok(rows) => rows.into_iter().map(StatusEvent::from).collect(),
            Err(error) => {
                // Debug, because thousands of streams may retry at the same time.
                tracing::debug!(%error, "a stream cannot read its return's events");
                Vec::new()
            }
        }
    }

    /// Whether the client may receive events now. `false` while the policy cannot be evaluated.
    fn may_receive(&self) -> Result<bool, Ended> {
        if self.grant.is_outdated() {
            return Err(Ended::OtherKeys);
        }
        match self.grant.still_holds() {
            Some(true) => Ok(true),
            Some(false) => Err(Ended::Unauthorized),
            None => Ok(false),
        }
    }

    async fn send_events(&mut self, events: &[StatusEvent]) -> Result<(), Ended> {
        let Some(last) = events.last() else {
            return Ok(());
        };
        let mut text = BytesMut::new();
        for event in events {
            text.extend_from_slice(&event.frame);
        }
        self.send(text.freeze()).await?;
        self.sent = last.seq;
        // Kept, because no event follows a final status, even if a later event's data is unreadable.
        self.is_final |= last.is_final;
        let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
        self.streams.metrics.streams.events.inc_by(count);
        Ok(())
    }

    /// Waits for a client that does not read, for as long as it may receive events.
    async fn send(&self, text: Bytes) -> Result<(), Ended> {
        loop {
            match timeout(UNREAD_CHECK, self.out.reserve()).await {
                Ok(Ok(place)) => {
                    place.send(text);
                    return Ok(());
                }
                Ok(Err(_)) => return Err(Ended::ClientDisconnected),
                Err(_) => {
                    self.may_receive()?;
                }
            }
        }
    }
}

/// Where the missing events are.
enum Missing {
    InMemory(Vec<StatusEvent>),
    InRows,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_begins_at_the_last_event_or_where_it_was_interrupted() {
        let above = |is_final, last_seen| {
            let version = 4;
            StreamStart {
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
