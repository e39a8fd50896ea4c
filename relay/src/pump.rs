//! The heart of the relay: one turn is read, publish, settle; the loop goes round until it is told to stop.
//!
//! Everything is decided in this one task, so there is no lock and no race about order. Reading, deleting and
//! Kafka's acknowledgements go on beside it and arrive as events: the next read runs while the rows of the last one
//! are enqueued, and rows are deleted while others are read.
//!
//! Must stay true:
//! - a row is sent only while its shard's lease is good, its predecessor has been sent, and it is not `unsettled`;
//! - an acknowledged row leaves `unsettled` only when its deletion is confirmed and no read whose answer will be taken
//!   may still show it, or with its shard when the lease is lost; any other when its producer is destroyed;
//! - whatever was read and not sent moves its shard's cursor back, so nothing is passed over;
//! - the flow changes only while nothing is in flight;
//! - after any failure there is one answer (`start_over` in `pump/recovery.rs`).

mod holdings;
mod parking;
mod reading;
mod recovery;
mod sending;
mod settling;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use shared::domain::ids::{EventId, Shard};
use shared::runtime::killpoint::kill_point;
use sqlx::mysql::MySqlConnectOptions;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::PumpArgs;
use crate::deleter::Deleter;
use crate::error::{Failure, RelayError};
use crate::lease::{Holdings, Leases};
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::pending::RowKey;
use crate::predecessor::Verdicts;
use crate::publisher::{Flow, Publish, Report};
use crate::reader::{Answer, Reader};
use crate::session::Session;
use crate::shard_work::ShardWork;
use crate::topics::TopicLimits;

/// Most rows in flight or not yet deleted: bounds memory, and what is sent twice after a crash.
pub const MAX_UNSETTLED: usize = 8_192;
/// Reports taken at once.
const REPORTS: usize = 1_024;
/// The loop looks at the clock at least this often: leases end although nothing happens.
const TICK: Duration = Duration::from_millis(50);
/// After a full queue, or a look-up that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Moves rows from the outbox to Kafka.
#[derive(Debug)]
pub struct Pump<P> {
    args: PumpArgs,
    publisher: P,
    reports: mpsc::UnboundedReceiver<Report>,
    leases: Leases,
    holdings: Holdings,
    holdings_changed: bool,
    reader: Reader,
    deleter: Deleter,
    topics: TopicLimits,
    /// For look-ups and parking.
    session: Session,
    shards: BTreeMap<Shard, ShardWork>,
    /// Rises whenever an answer to an earlier read no longer fits.
    era: u64,
    /// Where the next read begins: a read that was full goes on with the shards after its last, so that a busy shard
    /// cannot starve others.
    next_shard: Shard,
    pace: Pace,
    /// The flow of the records in flight, and the one that would fit.
    flow: Flow,
    fitting_flow: Flow,
    /// How long the next answer waits for what is in flight, to change the flow.
    change_flow_by: Instant,
    /// Deleted rows that a read under way may still show.
    gone: Vec<RowKey>,
    /// Acknowledgement numbers begin here for the next shard taken: no two tenures share any.
    next_number: usize,
    /// Records to be sent alone, because a batch that they were in was refused; and since when.
    alone: HashMap<EventId, Instant>,
    /// What the producer that failed said about records themselves.
    refused: Vec<(RowKey, String)>,
    failures_in_a_row: u32,
    metrics: Metrics,
}

/// What the loop woke up for.
enum Event {
    Read(Answer),
    Reports(Vec<Report>),
    Deleted(Vec<RowKey>),
    Tick,
    Ended(&'static str),
}

/// Why a turn did not end well.
pub(crate) enum TurnError {
    Failed(Failure),
    Ended(&'static str),
}

impl From<Failure> for TurnError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl<P: Publish> Pump<P> {
    pub fn new(
        args: PumpArgs,
        options: &MySqlConnectOptions,
        publisher: P,
        leases: Leases,
        metrics: Metrics,
        quit: &CancellationToken,
    ) -> Self {
        let (_, reports) = mpsc::unbounded_channel();
        Self {
            publisher,
            reports,
            session: Session::new(options.clone(), leases.patience),
            leases,
            holdings: Holdings::new(),
            holdings_changed: true,
            reader: Reader::spawn(options.clone(), &args, metrics.clone(), quit.clone()),
            deleter: Deleter::spawn(options, &metrics, quit),
            topics: TopicLimits::new(metrics.clone()),
            shards: BTreeMap::new(),
            era: 0,
            next_shard: Shard(0),
            pace: Pace::new(args.poll_min(), args.poll_max()),
            flow: Flow::Trickle,
            fitting_flow: Flow::Trickle,
            change_flow_by: Instant::now(),
            gone: Vec::new(),
            next_number: 0,
            alone: HashMap::new(),
            refused: Vec::new(),
            failures_in_a_row: 0,
            metrics,
            args,
        }
    }

    /// Runs until `stop`, then flushes within the drain deadline; answers how many rows were left in flight.
    ///
    /// # Errors
    /// The producer's settings are bad, or a helper task ended.
    pub async fn run(mut self, stop: CancellationToken) -> Result<usize, RelayError> {
        self.connect()?;
        while !stop.is_cancelled() {
            match self.turn(&stop).await {
                Ok(()) => {}
                Err(TurnError::Failed(failure)) => self.start_over(failure, &stop).await?,
                Err(TurnError::Ended(task)) => return Err(RelayError::TaskEnded(task)),
            }
        }
        Ok(self.drain().await)
    }

    /// One turn: see what is ours, ask for rows, and take what arrived.
    async fn turn(&mut self, stop: &CancellationToken) -> Result<(), TurnError> {
        self.follow_leases().await?;
        self.deleter.hand_out(false);
        self.read_on();
        match self.next_event(stop).await {
            Event::Read(answer) => self.publish(answer).await?,
            Event::Reports(reports) => self.settle(&reports)?,
            Event::Deleted(keys) => self.note_deleted(keys),
            Event::Tick => {}
            Event::Ended(task) => return Err(TurnError::Ended(task)),
        }
        Ok(())
    }

    async fn next_event(&mut self, stop: &CancellationToken) -> Event {
        let wake = self.wake_at();
        let may_take = self.flow == self.fitting_flow
            || self.unacked() == 0
            || Instant::now() >= self.change_flow_by;
        let mut reports = Vec::new();
        tokio::select! {
            () = stop.cancelled() => Event::Tick,
            answer = self.reader.answer(), if may_take => answer.map_or(Event::Ended("reader"), Event::Read),
            count = self.reports.recv_many(&mut reports, REPORTS) => match count {
                0 => Event::Ended("producer"),
                _ => Event::Reports(reports),
            },
            keys = self.deleter.deleted() => keys.map_or(Event::Ended("deleter"), Event::Deleted),
            () = self.topics.answered() => Event::Tick,
            changed = self.leases.holdings.changed() => {
                self.holdings_changed = true;
                changed.map_or(Event::Ended("lease keeper"), |()| Event::Tick)
            }
            () = tokio::time::sleep_until(wake.into()) => Event::Tick,
        }
    }

    fn wake_at(&self) -> Instant {
        let tick = Instant::now() + TICK;
        let read = self.may_read().then_some(self.pace.next());
        [read, self.deleter.due()]
            .into_iter()
            .flatten()
            .fold(tick, Instant::min)
    }

    // Publish.

    async fn publish(&mut self, answer: Answer) -> Result<(), Failure> {
        kill_point("relay.after_read");
        if answer.ask.era != self.era {
            return Ok(());
        }
        self.choose_flow(&answer);
        let mut rows = self.take_new(answer);
        if rows.is_empty() {
            return Ok(());
        }
        // From here on the next read runs beside us.
        self.read_on();
        self.put_suspicious_shards_first(&mut rows);
        let verdicts = match self.look_up_predecessors(&rows).await {
            Ok(verdicts) => verdicts,
            Err(error) => {
                self.metrics.database_error("predecessors", &error);
                self.pace.wait(Instant::now() + RETRY_PAUSE);
                // Nobody vouches for the suspects, so they are put back; all others can go.
                Verdicts::default()
            }
        };
        self.send_all(&rows, &verdicts).await
    }

    fn unsettled(&self) -> usize {
        self.shards.values().map(|work| work.unsettled.len()).sum()
    }

    fn unacked(&self) -> usize {
        self.shards.values().map(|work| work.in_flight.len()).sum()
    }
}
