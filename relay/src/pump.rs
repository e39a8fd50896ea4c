//! The main loop of the relay: each round reads, publishes and settles, until the relay is stopped.
//!
//! This one task makes every decision, so there are no locks and no races about order. Other tasks read, delete and
//! deliver; their results arrive as events. So the next read runs while the rows of the last one are enqueued, and rows
//! are deleted while others are read.
//!
//! Invariants:
//! - A row is sent only while its shard's lease is valid, after its predecessor was sent, and if it is not `unsettled`.
//! - An acknowledged row stays `unsettled` until its deletion is confirmed and no read in progress can still return it,
//!   or until its shard's lease is lost. Any other row stays `unsettled` until its producer is destroyed.
//! - A row that was read and not sent moves its shard's cursor back, so no row is skipped.
//! - The send mode changes only while nothing is in flight.
//! - Every `RestartCause` has the same reaction: `restart_producer` in `pump/recovery.rs`.

mod draining;
mod holding;
mod ownership;
mod parking;
mod recovery;
mod sending;
mod settling;

use std::time::{Duration, Instant};

use shared::runtime::db::Database;
use shared::runtime::killpoint::kill_point;
use tokio_util::sync::CancellationToken;

use self::holding::Held;
use crate::config::PumpArgs;
use crate::deleter::{DeleteWorker, Deleter};
use crate::delivery::Delivery;
use crate::error::{RelayError, RestartCause};
use crate::held_counter::{CountTask, HeldCount, HeldCounter};
use crate::lease::LeaseHandle;
use crate::metrics::{Metrics, WorkMonitor};
use crate::outbox_reader::{OutboxReader, ReadResult, ReadTask};
use crate::owned_shards::OwnedShards;
use crate::pace::Pace;
use crate::pending::{Pending, RowKey};
use crate::publisher::{DeliveryReport, Publish};
use crate::read_ahead::ReadAhead;
use crate::shard_state::ReadRow;
use crate::spans;

pub use crate::partitions::MAX_UNSETTLED;

/// The loop checks the clock at least this often: a lease ends without an event.
const TICK: Duration = Duration::from_millis(50);
/// The pause after the queue was full, and after database work failed.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Moves rows from the outbox to Kafka.
#[derive(Debug)]
pub struct Pump<P> {
    /// What is ours: shards, their leases, and the rows in flight of each.
    owned: OwnedShards,
    /// What is read next, and when.
    reads: ReadAhead,
    /// How records are sent, and how sending recovers.
    delivery: Delivery<P>,
    deleter: Deleter,
    counter: HeldCounter,
    /// For look-ups.
    database: Database,
    parking_database: Database,
    /// When all held rows were read again last, and when they must be.
    released_at: Option<Instant>,
    release_due: Option<Instant>,
    monitors: WorkMonitors,
    args: PumpArgs,
    metrics: Metrics,
}

/// The pump's kinds of database work.
#[derive(Debug)]
struct WorkMonitors {
    predecessors: WorkMonitor,
    parked_keys: WorkMonitor,
    park: WorkMonitor,
}

/// The tasks that must run beside the pump.
#[derive(Debug)]
pub(crate) struct PumpTasks {
    pub(crate) reader: ReadTask,
    pub(crate) counter: CountTask,
    pub(crate) delete_workers: Vec<DeleteWorker>,
}

/// Why the loop wakes up.
enum Event {
    Read(ReadResult),
    Reported(Vec<DeliveryReport>),
    Deleted(Vec<RowKey>),
    Counted(HeldCount),
    LeasesChanged,
    Tick,
    TaskEnded(&'static str),
}

/// Why a turn failed.
enum TurnError {
    Restart(RestartCause),
    TaskEnded(&'static str),
}

impl From<RestartCause> for TurnError {
    fn from(cause: RestartCause) -> Self {
        Self::Restart(cause)
    }
}

impl<P: Publish> Pump<P> {
    /// Each task gets a connection of its own, so that none waits for another.
    pub(crate) fn new(
        args: PumpArgs,
        database: &Database,
        publisher: P,
        leases: LeaseHandle,
        metrics: Metrics,
    ) -> (Self, PumpTasks) {
        let (reader, read_task) = OutboxReader::new(database.separate(1), &args, &metrics);
        let (deleter, delete_workers) = Deleter::new(database, &metrics);
        let (counter, count_task) = HeldCounter::new(database.separate(1), &metrics);
        let pace = Pace::new(args.poll_min(), args.poll_max());
        let pump = Self {
            owned: OwnedShards::new(leases, metrics.clone()),
            reads: ReadAhead::new(reader, pace, metrics.clone()),
            delivery: Delivery::new(publisher, metrics.clone()),
            deleter,
            counter,
            database: database.separate(1),
            parking_database: database.separate(1),
            released_at: None,
            release_due: None,
            monitors: WorkMonitors {
                predecessors: metrics.monitor("predecessors", "looking up predecessors"),
                parked_keys: metrics.monitor("parked_keys", "reading parked keys"),
                park: metrics.monitor("park", "parking rows"),
            },
            args,
            metrics,
        };
        let tasks = PumpTasks {
            reader: read_task,
            counter: count_task,
            delete_workers,
        };
        (pump, tasks)
    }

    /// Runs until `stop`, then flushes within the drain deadline. Returns how many rows are left in flight.
    ///
    /// # Errors
    /// The producer's settings are bad, or a task that the pump needs has ended.
    pub async fn run(mut self, stop: CancellationToken) -> Result<usize, RelayError> {
        self.delivery.connect()?;
        while !stop.is_cancelled() {
            match self.turn(&stop).await {
                Ok(()) => {}
                Err(TurnError::Restart(cause)) => self.restart_producer(cause, &stop).await?,
                Err(TurnError::TaskEnded(task)) => return Err(RelayError::TaskEnded(task)),
            }
        }
        Ok(self.drain().await)
    }

    /// Follows the leases, starts what is due, and handles the next event.
    async fn turn(&mut self, stop: &CancellationToken) -> Result<(), TurnError> {
        self.follow_leases().await?;
        self.settle_waiting()?;
        self.delivery.look_after_troubles(&self.owned);
        self.release_recovered();
        self.deleter.dispatch(false);
        self.read_if_due();
        match self.next_event(stop).await {
            Event::Read(result) => self.publish(result).await?,
            Event::Reported(reports) => self.settle(&reports)?,
            Event::Deleted(keys) => self.note_deleted(keys),
            Event::Counted(count) => self.note_counted(&count),
            Event::LeasesChanged | Event::Tick => {}
            Event::TaskEnded(task) => return Err(TurnError::TaskEnded(task)),
        }
        Ok(())
    }

    async fn next_event(&mut self, stop: &CancellationToken) -> Event {
        let wake = self.wake_at();
        let may_take_rows = self.delivery.may_take_rows(&self.owned);
        tokio::select! {
            () = stop.cancelled() => Event::Tick,
            result = self.reads.result(), if may_take_rows => {
                result.map_or(Event::TaskEnded("reader"), Event::Read)
            }
            reports = self.delivery.reports() => {
                reports.map_or(Event::TaskEnded("producer"), Event::Reported)
            }
            keys = self.deleter.deleted() => {
                keys.map_or(Event::TaskEnded("deleter"), Event::Deleted)
            }
            count = self.counter.counted() => {
                count.map_or(Event::TaskEnded("held row counter"), Event::Counted)
            }
            is_alive = self.owned.leases_changed() => match is_alive {
                true => Event::LeasesChanged,
                false => Event::TaskEnded("lease keeper"),
            },
            () = tokio::time::sleep_until(wake.into()) => Event::Tick,
        }
    }

    fn wake_at(&self) -> Instant {
        let tick = Instant::now() + TICK;
        let read = self.may_read().then_some(self.reads.due());
        [read, self.deleter.due()]
            .into_iter()
            .flatten()
            .fold(tick, Instant::min)
    }

    /// Starts the next read, if it is due and there is room for its rows.
    fn read_if_due(&mut self) {
        // First of all: rows that still count as unsettled may leave no room.
        if !self.reads.is_reading() {
            self.reads.settle_deleted(&mut self.owned);
        }
        let now = Instant::now();
        if now >= self.reads.due() && self.may_read() {
            let checks = self.reads.start(&mut self.owned, now);
            checks
                .into_iter()
                .for_each(|check| self.counter.request(check));
        }
    }

    fn may_read(&self) -> bool {
        !self.reads.is_reading()
            && self.unsettled_in_window() < MAX_UNSETTLED
            && self.delivery.has_room(&self.owned)
    }

    /// Records of stalled partitions leave their room to others.
    fn unsettled_in_window(&self) -> usize {
        let stalled = self.delivery.stalled_records();
        self.owned.unsettled().saturating_sub(stalled)
    }

    /// Sends the new rows of a read, in order, while the next read runs.
    async fn publish(&mut self, result: ReadResult) -> Result<(), RestartCause> {
        kill_point("relay.after_read");
        if !self.reads.is_current(&result) {
            return Ok(());
        }
        let ReadResult { request, batch } = result;
        self.delivery
            .choose_mode(batch.is_full, request.is_partial, &self.owned);
        let read: Vec<ReadRow> = batch.rows.iter().map(ReadRow::of).collect();
        let rows = self.reads.take_new_rows(&request, batch, &mut self.owned);
        let held = match rows.is_empty() {
            true => Held::default(),
            false => self.send_new(rows).await?,
        };
        self.pass_over(&request.ranges, &read, &held);
        Ok(())
    }

    async fn send_new(&mut self, mut rows: Vec<Pending>) -> Result<Held, RestartCause> {
        self.read_if_due();
        self.delivery.put_isolated_first(&mut rows);
        let batch = spans::batch_of(&rows);
        let looked_up = batch.scope(self.look_up_predecessors(&rows)).await;
        self.send_all(&rows, &looked_up?, &batch).await
    }
}
