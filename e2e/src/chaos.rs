//! Relays that are killed, frozen and stopped while events flow; afterwards every record of both topics is checked.
//!
//! The load is synthetic (`load`), the rest is real: processes, signals, leases, MySQL, Kafka.

mod fleet;
mod writers;

use std::time::{Duration, Instant};

use anyhow::ensure;
use shared::test_support::topic_order::Repeats;

use self::fleet::{Fleet, Injected};
use self::writers::Writers;
use crate::load::Writer;
use crate::system::System;
use crate::topic_check::{self, TopicContents};
use crate::until;

/// The load, and how often a relay fails.
#[derive(Debug, Clone)]
pub struct Plan {
    pub relays: usize,
    pub writers: usize,
    pub returns: usize,
    /// The least number of events.
    pub events: u64,
    pub events_per_second: u32,
    /// The least number of kills and freezes.
    pub take_overs: usize,
    pub every: Duration,
    pub lease: Duration,
    /// How much longer than the protocol needs a take-over may last on a busy machine.
    pub spare: Duration,
    /// From SIGTERM until other relays hold the shards: flushing, and one renewal of the new owner.
    pub hand_over: Duration,
}

/// The result of a run.
#[derive(Debug)]
pub struct Findings {
    pub topics: TopicContents,
    /// From a kill until other relays held every shard of the victim.
    pub after_kill: Vec<Duration>,
    /// The same after a freeze.
    pub after_freeze: Vec<Duration>,
    /// The same after SIGTERM.
    pub after_stop: Vec<Duration>,
    pub seconds: f64,
}

/// The faults, injected in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    /// SIGSTOP beyond the lease, then SIGCONT.
    Freeze,
    /// The same, while its DELETE waits in the server.
    FreezeInDelete,
    /// SIGTERM.
    Stop,
}

const ROUND: [Fault; 6] = [
    Fault::Kill,
    Fault::Freeze,
    Fault::Kill,
    Fault::Stop,
    Fault::FreezeInDelete,
    Fault::Kill,
];
/// Rows that a relay may have begun to send after its metric was read: two reads.
const SENT_SINCE: u64 = 2_000;
const SETTLE_DEADLINE: Duration = Duration::from_secs(120);

/// Runs the plan on a fresh system; `log` gets a line per fault.
///
/// # Errors
/// A promise is broken (the message names it), or the run failed.
pub async fn run(plan: &Plan, log: impl Fn(&str)) -> anyhow::Result<Findings> {
    let system = System::create().await?;
    let orders: Vec<_> = (1..)
        .map(shared::domain::ids::OrderId)
        .take(plan.returns)
        .collect();
    let returns = Writer::connect(&system.db.pool.connect_options(), system.topic_args())
        .await?
        .file(&system.db, &orders)
        .await?;
    let mut fleet = Fleet::start(&system, plan).await?;
    let begun = Instant::now();
    let writers = Writers::start(&system, plan, &returns).await?;
    let (mut after_kill, mut after_freeze, mut after_stop) = (Vec::new(), Vec::new(), Vec::new());
    let mut under_way = 0;
    let mut faults = ROUND.into_iter().cycle();
    let mut next = begun + plan.every;
    while after_kill.len() + after_freeze.len() < plan.take_overs || writers.written() < plan.events
    {
        writers.check()?;
        tokio::time::sleep_until(next.into()).await;
        next = Instant::now().max(next) + plan.every;
        let Some(fault) = faults.next() else { break };
        let Injected {
            took,
            under_way: at_victim,
        } = fleet.inject(fault).await?;
        under_way += at_victim + SENT_SINCE;
        match fault {
            Fault::Kill => after_kill.push(took),
            Fault::Freeze | Fault::FreezeInDelete => after_freeze.push(took),
            Fault::Stop => after_stop.push(took),
        }
        log(&format!(
            "{:?} after {:.0} s: shards taken over in {} ms, {} events so far",
            fault,
            begun.elapsed().as_secs_f64(),
            took.as_millis(),
            writers.written()
        ));
    }
    let written = writers.finish().await?;
    until("the outbox is empty", SETTLE_DEADLINE, async || {
        Ok(system.count("SELECT COUNT(*) FROM outbox").await? == 0)
    })
    .await?;
    fleet.finish().await?;
    let parked = system.count("SELECT COUNT(*) FROM outbox_parked").await?;
    ensure!(parked == 0, "{parked} rows were parked");
    let seconds = begun.elapsed().as_secs_f64();
    let topics = topic_check::check(&system).await?;
    let expected = written + u64::try_from(returns.len())?;
    ensure!(
        topics.events == expected,
        "P3: {expected} events were committed, {} are in Kafka",
        topics.events
    );
    explain(topics.repeats, under_way)?;
    // A lease, and one renewal of the new owner.
    let take_over = plan.lease + plan.lease / 5 + plan.spare;
    within("taken over after a kill", &after_kill, take_over)?;
    within("taken over after a freeze", &after_freeze, take_over)?;
    within("handed over after SIGTERM", &after_stop, plan.hand_over)?;
    Ok(Findings {
        topics,
        after_kill,
        after_freeze,
        after_stop,
        seconds,
    })
}

/// A take-over repeats the rows that the victim had in flight: the new owner cannot know of them, and a frozen victim may
/// still append them.
fn explain(repeats: Repeats, under_way: u64) -> anyhow::Result<()> {
    ensure!(
        repeats.count() <= under_way,
        "{repeats:?}, but the victims had at most {under_way} records under way"
    );
    Ok(())
}

/// The 99th percentile must be within the bound; of fewer than 100, the longest.
fn within(what: &str, times: &[Duration], bound: Duration) -> anyhow::Result<()> {
    let Some(p99) = percentile(times, 99) else {
        return Ok(());
    };
    ensure!(p99 < bound, "{what}: p99 {p99:?}, not below {bound:?}");
    Ok(())
}

/// The smallest value that `percent` of the times do not exceed; `None` if there are none.
pub fn percentile(times: &[Duration], percent: usize) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}
