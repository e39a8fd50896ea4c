//! Consumers start, stop and are killed while they pay refunds. Afterwards the provider's ledger, the rows, the audit trail
//! and Kafka are compared.

use std::time::{Duration, Instant};

use anyhow::ensure;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shared::domain::ids::OrderId;

use crate::checks;
use crate::load::Writer;
use crate::program::Program;
use crate::provider::Provider;
use crate::system::System;
use crate::until;

/// Every kill point between a message and the end of its refund.
pub const STEPS: [&str; 7] = [
    "consumer.after_poll",
    "consumer.after_claim",
    "consumer.before_call",
    "consumer.after_call",
    "consumer.before_settle",
    "consumer.before_settle_commit",
    "consumer.after_settle",
];

/// The load, and what happens to the consumers.
#[derive(Debug, Clone)]
pub struct Plan {
    pub returns: usize,
    pub disruption: Disruption,
    /// Flags of `returnsctl dev-gateway`.
    pub gateway: Vec<String>,
    /// Settings beyond those of a [`System`].
    pub settings: Vec<(&'static str, String)>,
    /// The seed for victims and times.
    pub seed: u64,
}

/// What happens to the consumers.
#[derive(Debug, Clone)]
pub enum Disruption {
    /// Two consumers run. One is killed and replaced at a random time around each `every`.
    KillAtRandom { kills: usize, every: Duration },
    /// Two consumers stay, and a third one dies at each of [`STEPS`] in turn.
    DieAtSteps { each: usize },
    /// Three or four consumers run: in turn, one joins, one is stopped, one joins, one is killed.
    Storm { lasts: Duration, every: Duration },
}

/// The result of a run.
#[derive(Debug, Clone, Copy)]
pub struct Findings {
    pub returns: usize,
    /// Kills, stops and joins.
    pub changes: usize,
    /// Of all consumers, also those that have ended.
    pub rebalances: u64,
    /// Attempts that the scan found due: their owner had died, or did not get an outcome.
    pub taken_over: u64,
}

/// A consumer that died keeps its partitions for ten seconds.
const SETTLE_DEADLINE: Duration = Duration::from_secs(180);
/// A consumer that is to die at a step must get partitions first.
const DEATH_DEADLINE: Duration = Duration::from_secs(90);
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Returns that are filed at a time meanwhile, and the pause between.
const TRICKLE: (usize, Duration) = (4, Duration::from_millis(200));
/// Longer than any run, so that the scan does not hide a lost message.
const GRACE_SECS: &str = "3600";
/// After a death all waiting messages come at once. Each call must still begin in time, or its outcome would be unknown.
const CALLS: [(&str, &str); 3] = [
    ("MAX_OPEN_ATTEMPTS", "128"),
    ("CALL_DEADLINE_MS", "6000"),
    ("GATEWAY_CALL_TIMEOUT_MS", "5000"),
];
/// The default of GATEWAY_PARALLEL_CALLS.
const PARALLEL_CALLS: usize = 64;
const REBALANCES: &str = "refund_consumer_rebalances_total";
const OPEN: &str = "refund_consumer_open_attempts";
const TAKEN_OVER: &str = r#"refund_consumer_found_waiting_total{kind="due"}"#;

/// A system, its provider and its consumers.
struct Run<'a> {
    system: System,
    _provider: Provider,
    _relay: Program,
    consumers: Vec<Program>,
    writer: Writer,
    orders: Box<dyn Iterator<Item = OrderId> + 'a>,
    random: StdRng,
    has_keys: bool,
    filed: usize,
    changes: usize,
    rebalances: u64,
    taken_over: u64,
}

/// Runs the plan on a fresh system; `log` gets a line per change and one at the end.
///
/// # Errors
/// A promise is broken (the message names it), or the run failed.
pub async fn run(plan: &Plan, log: impl Fn(&str)) -> anyhow::Result<Findings> {
    log(&format!("--seed {}: {:?}", plan.seed, plan.disruption));
    let (begun, mut run) = (Instant::now(), Run::start(plan).await?);
    match plan.disruption {
        Disruption::KillAtRandom { kills, every } => {
            for _ in 0..kills {
                let pause = every.mul_f64(run.random.random_range(0.5..1.5));
                run.file_for(pause, plan.returns.div_ceil(kills)).await?;
                run.until_one_is_busy().await?;
                run.kill_any().await?;
                log(&format!("killed; {}", run.state().await?));
                run.join().await?;
            }
        }
        Disruption::DieAtSteps { each } => {
            for step in STEPS.into_iter().cycle().take(STEPS.len() * each) {
                run.die_at(step).await?;
                log(&format!("died at {step}; {}", run.state().await?));
            }
            run.file(plan.returns.saturating_sub(run.filed)).await?;
        }
        Disruption::Storm { lasts, every } => {
            run.join().await?;
            let rounds = usize::try_from(lasts.as_millis() / every.as_millis())?;
            for round in 0..rounds {
                run.file_for(every, plan.returns.div_ceil(rounds)).await?;
                let change = run.change(round).await?;
                log(&format!("{change}; {}", run.state().await?));
            }
        }
    }
    let findings = run.end().await?;
    log(&format!(
        "{} in {:.0} s through {} changes and {} rebalances, {} attempts taken over",
        run.outcome().await?,
        begun.elapsed().as_secs_f64(),
        findings.changes,
        findings.rebalances,
        findings.taken_over
    ));
    Ok(findings)
}

impl Run<'_> {
    async fn start(plan: &Plan) -> anyhow::Result<Self> {
        let mut system = System::create().await?;
        let flags: Vec<&str> = plan.gateway.iter().map(String::as_str).collect();
        let has_keys = !flags.contains(&"--no-idempotency-keys");
        let provider = Provider::start(&mut system, &flags).await?;
        let fixed = CALLS.iter().chain(&[("INITIATED_GRACE_SECS", GRACE_SECS)]);
        let fixed = fixed.map(|(name, value)| (*name, (*value).to_owned()));
        for (name, value) in fixed.chain(plan.settings.iter().cloned()) {
            system.env.insert(name.to_owned(), value);
        }
        let relay = system.start("outbox-relay").await?;
        let options = system.db.pool.connect_options();
        let mut run = Self {
            writer: Writer::connect(&options, system.topic_args()).await?,
            system,
            _provider: provider,
            _relay: relay,
            consumers: Vec::new(),
            orders: Box::new((1..).map(OrderId)),
            random: StdRng::seed_from_u64(plan.seed),
            has_keys,
            filed: 0,
            changes: 0,
            rebalances: 0,
            taken_over: 0,
        };
        run.join().await?;
        run.join().await?;
        Ok(run)
    }

    async fn file(&mut self, count: usize) -> anyhow::Result<()> {
        let orders: Vec<OrderId> = self.orders.by_ref().take(count).collect();
        self.writer.file(&self.system.db, &orders).await?;
        self.filed += count;
        Ok(())
    }

    /// Files a few returns at a time, so that every step is under way when a consumer is killed.
    async fn file_for(&mut self, time: Duration, count: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        let parts = usize::try_from(time.as_millis() / TRICKLE.1.as_millis())?.max(1);
        for part in 0..parts {
            self.file(count * (part + 1) / parts - count * part / parts)
                .await?;
            let next = begun + time * u32::try_from(part + 1)? / u32::try_from(parts)?;
            tokio::time::sleep_until(next.into()).await;
        }
        Ok(())
    }

    async fn join(&mut self) -> anyhow::Result<()> {
        self.consumers
            .push(self.system.start("refund-consumer").await?);
        Ok(())
    }

    /// Removes a consumer from the list: one with open attempts, if there is one.
    async fn any(&mut self) -> anyhow::Result<Program> {
        let busy = self.busy().await?;
        let victim = match busy.len() {
            0 => self.random.random_range(0..self.consumers.len()),
            some => busy[self.random.random_range(0..some)],
        };
        let victim = self.consumers.swap_remove(victim);
        self.rebalances += victim.metric(REBALANCES).await?;
        self.taken_over += victim.metric_if_any(TAKEN_OVER).await?.unwrap_or(0);
        Ok(victim)
    }

    /// Consumers with open attempts.
    async fn busy(&self) -> anyhow::Result<Vec<usize>> {
        let mut busy = Vec::new();
        for (at, consumer) in self.consumers.iter().enumerate() {
            if consumer.metric(OPEN).await? > 0 {
                busy.push(at);
            }
        }
        Ok(busy)
    }

    /// While the group waits for a consumer that died, no consumer has work that a kill could interrupt.
    async fn until_one_is_busy(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.busy().await?.is_empty() {
            ensure!(begun.elapsed() < DEATH_DEADLINE, "no consumer has work");
            self.file(TRICKLE.0).await?;
            tokio::time::sleep(TRICKLE.1).await;
        }
        Ok(())
    }

    async fn kill_any(&mut self) -> anyhow::Result<()> {
        self.changes += 1;
        self.any().await?.kill().await
    }

    async fn stop_any(&mut self) -> anyhow::Result<()> {
        self.changes += 1;
        self.any().await?.stop(STOP_DEADLINE).await
    }

    /// The next change of a storm.
    async fn change(&mut self, round: usize) -> anyhow::Result<&'static str> {
        match round % 4 {
            1 => {
                self.stop_any().await?;
                Ok("stopped")
            }
            3 => {
                self.kill_any().await?;
                Ok("killed")
            }
            _ => {
                self.join().await?;
                self.changes += 1;
                Ok("joined")
            }
        }
    }

    /// While returns are filed, a third consumer joins and kills itself when it first reaches `step`.
    async fn die_at(&mut self, step: &str) -> anyhow::Result<()> {
        let armed = format!("{step}=return");
        let mut doomed = self
            .system
            .start_with("refund-consumer", &[("FAILPOINTS", &armed)])
            .await?;
        let begun = Instant::now();
        while !doomed.has_ended()? && begun.elapsed() < DEATH_DEADLINE {
            self.file(TRICKLE.0).await?;
            tokio::time::sleep(TRICKLE.1).await;
        }
        self.changes += 1;
        doomed.killed_itself(Duration::ZERO).await
    }

    /// Waits for the last refund, stops the consumers, and compares everything.
    async fn end(&mut self) -> anyhow::Result<Findings> {
        if self.has_keys {
            self.system.settled(SETTLE_DEADLINE).await?;
        } else {
            self.settled_or_parked().await?;
        }
        // Messages that a dead consumer had read and not committed are read again by the next owner of its partitions.
        until("all offsets are committed", SETTLE_DEADLINE, async || {
            Ok(checks::lag(&self.system).await? == 0)
        })
        .await?;
        while !self.consumers.is_empty() {
            self.any().await?.stop(STOP_DEADLINE).await?;
        }
        checks::everything(&self.system).await?;
        checks::every_message_was_processed(&self.system).await?;
        if self.has_keys {
            checks::straight_paths(&self.system).await?;
        }
        Ok(Findings {
            returns: self.filed,
            changes: self.changes,
            rebalances: self.rebalances,
            taken_over: self.taken_over,
        })
    }

    /// Without idempotency keys, an attempt that a dead consumer may have sent is parked if the provider does not know it.
    async fn settled_or_parked(&self) -> anyhow::Result<()> {
        self.system.settled_or_parked(SETTLE_DEADLINE).await?;
        let parked = "SELECT COUNT(*) FROM refunds WHERE state = 'parked'";
        let parked = usize::try_from(self.system.count(parked).await?)?;
        // A consumer has this many calls at the same time.
        let bound = self.changes * PARALLEL_CALLS;
        ensure!(
            parked <= bound,
            "{parked} parked after {} changes",
            self.changes
        );
        Ok(())
    }

    async fn outcome(&self) -> anyhow::Result<String> {
        let parked = "SELECT COUNT(*) FROM refunds WHERE state = 'parked'";
        Ok(format!(
            "{} returns, none paid twice; {} parked, all others refunded",
            self.filed,
            self.system.count(parked).await?
        ))
    }

    async fn state(&self) -> anyhow::Result<String> {
        let open = "SELECT COUNT(*) FROM returns WHERE status <> 'refunded'";
        Ok(format!(
            "{} of {} to be refunded",
            self.system.count(open).await?,
            self.filed
        ))
    }
}
