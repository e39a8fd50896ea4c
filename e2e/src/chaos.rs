//! Relays that are killed, frozen and stopped while events flow; afterwards every record of both topics is checked.
//!
//! The load is synthetic (`load`), the rest is real: processes, signals, leases, MySQL, Kafka.

mod fleet;
mod writers;

use std::time::{Duration, Instant};

use anyhow::ensure;

use self::fleet::Fleet;
use self::writers::Writers;
use crate::load::Writer;
use crate::system::System;
use crate::until;
use crate::verdict::{self, Repeats, Verdict};

/// How much, how fast, and how often something breaks.
#[derive(Debug, Clone)]
pub struct Plan {
    pub relays: usize,
    pub writers: usize,
    pub returns: usize,
    /// At least so many events are written.
    pub events: u64,
    pub events_per_second: u32,
    /// Kills and freezes; the run goes on until there were so many and the events are written.
    pub take_overs: usize,
    pub every: Duration,
    pub lease: Duration,
}

/// What a run found.
#[derive(Debug)]
pub struct Findings {
    pub verdict: Verdict,
    /// From a kill or a freeze until other relays held every shard of the victim.
    pub take_overs: Vec<Duration>,
    /// The same after SIGTERM.
    pub hand_overs: Vec<Duration>,
    pub seconds: f64,
}

/// What is done to a relay, in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    Kill,
    /// SIGSTOP beyond the lease, then SIGCONT.
    Freeze,
    /// The same, while its DELETE waits inside the server.
    FreezeInDelete,
    /// SIGTERM.
    Stop,
}

const ROUND: [Blow; 6] = [
    Blow::Kill,
    Blow::Freeze,
    Blow::Kill,
    Blow::Stop,
    Blow::FreezeInDelete,
    Blow::Kill,
];
/// Records that a relay with default settings has under way at most, see docs/adr/0007.
const MOST_UNDER_WAY: u64 = 10_191;
const SETTLE_DEADLINE: Duration = Duration::from_secs(120);

/// Runs the plan on a fresh system; `tell` gets a line per blow.
///
/// # Errors
/// A promise is broken, with its name, or the run could not be made.
pub async fn run(plan: &Plan, tell: impl Fn(&str)) -> anyhow::Result<Findings> {
    let system = System::create().await?;
    let orders: Vec<_> = (1..).map(shared::ids::OrderId).take(plan.returns).collect();
    let returns = Writer::connect(&system.db.pool.connect_options(), system.topic_args())
        .await?
        .file(&system.db, &orders)
        .await?;
    let mut fleet = Fleet::start(&system, plan).await?;
    let begun = Instant::now();
    let writers = Writers::start(&system, plan, &returns).await?;
    let (mut take_overs, mut hand_overs) = (Vec::new(), Vec::new());
    let mut blows = ROUND.into_iter().cycle();
    let mut next = begun + plan.every;
    while take_overs.len() < plan.take_overs || writers.written() < plan.events {
        writers.check()?;
        tokio::time::sleep_until(next.into()).await;
        next = Instant::now().max(next) + plan.every;
        let Some(blow) = blows.next() else { break };
        let took = fleet.strike(blow).await?;
        match blow {
            Blow::Stop => hand_overs.push(took),
            _ => take_overs.push(took),
        }
        tell(&format!(
            "{:?} after {:.0} s: shards taken over in {} ms, {} events so far",
            blow,
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
    let verdict = verdict::judge(&system).await?;
    let expected = written + u64::try_from(returns.len())?;
    ensure!(
        verdict.events == expected,
        "P3: {expected} events were committed, {} are in Kafka",
        verdict.events
    );
    explain(verdict.repeats, take_overs.len())?;
    Ok(Findings {
        verdict,
        take_overs,
        hand_overs,
        seconds,
    })
}

/// Only a take-over repeats, and only what its victim had under way: the heir cannot know it, a frozen victim may still
/// append it. Nobody here makes a producer fail, after which an owner would repeat its own.
fn explain(repeats: Repeats, take_overs: usize) -> anyhow::Result<()> {
    ensure!(
        repeats.by_owners == 0,
        "{} records were sent twice under one lease",
        repeats.by_owners
    );
    let most = u64::try_from(take_overs)? * MOST_UNDER_WAY;
    ensure!(
        repeats.by_heirs.max(repeats.late) <= most,
        "{repeats:?} are more than {take_overs} take-overs explain"
    );
    Ok(())
}
