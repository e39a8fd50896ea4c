//! Messages in, attempts out: one transaction per batch of returns.
//!
//! An offset is safe to store after the claim was committed: from then on the rows of `refunds` drive everything. A record
//! that names a return is safe without a claim too, because a scan finds the return (or a person does, if it needs
//! review). A bad record is safe once it is a dead letter.
//! Lock order: orders (shared), returns, then inserts. The transaction may run several times and has no other effects.

mod batch;
mod changes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::domain::event::TopicArgs;
use shared::domain::ids::ReturnId;
use shared::domain::transition;
use shared::runtime::clock::{Expiry, Moment};
use shared::runtime::db::Database;
use shared::runtime::killpoint::kill_point;
use shared::runtime::tasks::chain;
use shared::runtime::trace::{BatchSpan, KeyValue, names};
use sqlx::MySqlConnection;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::attempt::OwnedAttempt;
use crate::dead_letter::DeadLetter;
use crate::error::Error;
use crate::gateway::GatewayName;
use crate::message::{Reason, Record};
use crate::metrics::Metrics;
use crate::store::{self, NewAttempts, OrderLock};
use crate::transact::Transaction;
pub(crate) use batch::sorted;
use batch::{Batch, Candidate};
use changes::{CLAIMED, Changes, RecordResult, Terms};

/// A batch of ours holds its rows for up to about 0.2 s. No longer lock is waited for, because the next messages wait
/// meanwhile.
const HELD_PAUSES: [Duration; 4] = [
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
];

/// A return is claimed within seconds of its filing. An older one may stem from a restored backup and be paid already; its
/// key is the same, so it is looked up first.
const LOOK_UP_FIRST_AFTER: Duration = Duration::from_secs(15 * 60);

/// Claims on behalf of this process.
#[derive(Debug, Clone)]
pub struct Claimer {
    pub db: Database,
    pub topics: TopicArgs,
    /// Our name in the inbox.
    pub consumer: String,
    pub owner: Uuid,
    pub gateway: GatewayName,
    pub native_idempotency: bool,
    pub call_deadline: Duration,
    /// How long the gateway honors a key.
    pub window: Duration,
    pub metrics: Metrics,
    pub stop: CancellationToken,
}

/// What a transaction wrote; counted only after its commit.
#[derive(Debug, Default)]
struct Claimed {
    began: Option<Instant>,
    attempts: Vec<OwnedAttempt>,
    /// Indexes of candidates that were left out, because another transaction holds the return or its order.
    held: Vec<usize>,
    results: Vec<RecordResult>,
    dead: Vec<Reason>,
}

impl Claimer {
    /// Claims the returns that these records name; an unusable record becomes a dead letter. Attempts are handed over
    /// as they are committed. Once this returns, the records' offsets may be stored. Not cancel-safe: run it in a task
    /// of its own.
    ///
    /// # Errors
    /// Only when stopping, or when not even dead letters can be written: do not store the offsets.
    pub async fn claim_records(
        self: &Arc<Self>,
        records: &[Arc<Record>],
        hand_over: impl FnMut(Vec<OwnedAttempt>) + Send,
    ) -> Result<(), Error> {
        self.claim_batch(Batch::of_records(records, &self.consumer), hand_over)
            .await?;
        Ok(())
    }

    /// Claims returns that a scan found, and hands attempts over as they are committed. Returns those that other
    /// transactions hold. Not cancel-safe: run it in a task of its own.
    ///
    /// # Errors
    /// Only when stopping.
    pub async fn claim_found(
        self: &Arc<Self>,
        found: &[ReturnId],
        hand_over: impl FnMut(Vec<OwnedAttempt>) + Send,
    ) -> Result<Vec<ReturnId>, Error> {
        self.claim_batch(Batch::of_found(found), hand_over).await
    }

    /// Held returns are tried again a little later and then left to the scan, so that they delay no others. Returns them.
    async fn claim_batch(
        self: &Arc<Self>,
        mut batch: Batch,
        mut hand_over: impl FnMut(Vec<OwnedAttempt>) + Send,
    ) -> Result<Vec<ReturnId>, Error> {
        let mut pauses = HELD_PAUSES.into_iter();
        loop {
            let held = self.claim_free(&batch, &mut hand_over).await?;
            batch = batch.only(&held);
            if batch.is_empty() {
                return Ok(Vec::new());
            }
            let Some(pause) = pauses.next() else { break };
            self.stop
                .run_until_cancelled(tokio::time::sleep(pause))
                .await;
        }
        self.metrics
            .intake
            .messages
            .with_label_values(&["left"])
            .inc_by(batch.records());
        let (returns, first) = (batch.candidates.len(), batch.candidates.first());
        let first = first.map(|candidate| candidate.return_id.0);
        tracing::warn!(
            returns,
            first,
            "other transactions hold returns or their orders: left to the scan"
        );
        Ok(batch.returns())
    }

    /// Claims all free returns together; if that fails for good, one by one, so that one return does not delay the others.
    /// Returns the indexes of the held candidates.
    async fn claim_free(
        self: &Arc<Self>,
        batch: &Batch,
        hand_over: &mut (impl FnMut(Vec<OwnedAttempt>) + Send),
    ) -> Result<Vec<usize>, Error> {
        let error = match self.until_done(batch.clone()).await {
            Ok(claimed) => {
                hand_over(claimed.attempts);
                return Ok(claimed.held);
            }
            Err(error) if self.is_stopping(&error) => return Err(error),
            Err(error) => error,
        };
        tracing::warn!(
            error = chain(&error),
            returns = batch.candidates.len(),
            "a batch cannot be claimed together"
        );
        self.write_dead_letters(batch.dead_letters.clone()).await?;
        let mut held = Vec::new();
        for (at, candidate) in batch.candidates.iter().enumerate() {
            let claimed = self.claim_alone(candidate).await?;
            hand_over(claimed.attempts);
            if !claimed.held.is_empty() {
                held.push(at);
            }
        }
        Ok(held)
    }

    async fn claim_alone(self: &Arc<Self>, candidate: &Candidate) -> Result<Claimed, Error> {
        let error = match self.until_done(Batch::of_one(candidate.clone())).await {
            Err(error) if !self.is_stopping(&error) => error,
            done => return done,
        };
        tracing::error!(error = chain(&error), return.id = %candidate.return_id, "a return cannot be claimed");
        self.metrics
            .work
            .permanent_failures
            .with_label_values(&["claim"])
            .inc();
        let dead_letter = candidate.dead_letter(Reason::ClaimFailed);
        self.write_dead_letters(dead_letter.into_iter().collect())
            .await
    }

    async fn write_dead_letters(
        self: &Arc<Self>,
        dead_letters: Vec<DeadLetter>,
    ) -> Result<Claimed, Error> {
        self.until_done(Batch::of_dead_letters(dead_letters)).await
    }

    /// Whether a claim ended early because the process stops.
    fn is_stopping(&self, error: &Error) -> bool {
        error.is_transient() && self.stop.is_cancelled()
    }

    /// Runs the transaction until it commits, fails for good, or the process stops.
    async fn until_done(self: &Arc<Self>, batch: Batch) -> Result<Claimed, Error> {
        if batch.is_empty() {
            return Ok(Claimed::default());
        }
        let transaction = Transaction {
            db: &self.db,
            name: "claim",
            failures: &self
                .metrics
                .work
                .transient_failures
                .with_label_values(&["claim"]),
        };
        let counted_as = names::MESSAGING_BATCH_MESSAGE_COUNT;
        let together = BatchSpan::of_spans("claim.batch", counted_as, batch.spans());
        let (claimer, batch) = (Arc::clone(self), Arc::new(batch));
        let stopping = |_: &Error, _| self.stop.is_cancelled();
        let claimed = transaction.until_committed(stopping, move |tx| {
            let (claimer, batch) = (Arc::clone(&claimer), Arc::clone(&batch));
            Box::pin(async move { claimer.write(tx, &batch).await })
        });
        let claimed = together.scope_of_statement(claimed).await?;
        self.count(&claimed);
        kill_point("consumer.after_claim");
        Ok(claimed)
    }

    async fn write(&self, tx: &mut MySqlConnection, batch: &Batch) -> Result<Claimed, Error> {
        // Before the row's clock is read, so that our clocks' deadline is never later than the row's.
        let (began, asked) = (Instant::now(), Moment::now());
        let filings = store::read_filings(tx, &batch.returns()).await?;
        let (matched, dead_letters) = batch.match_filings(&filings);

        let order_ids = sorted(matched.iter().map(|one| one.filing.order_id));
        let orders = store::lock_orders(tx, &order_ids, OrderLock::Share).await?;
        // Both exist (foreign keys), so a row that is not returned is held.
        let (matched, order_held): (Vec<_>, Vec<_>) = matched
            .into_iter()
            .partition(|one| orders.contains_key(&one.filing.order_id));
        let return_ids = sorted(matched.iter().map(|one| one.filing.return_id));
        let mut locked = transition::lock_free(tx, &return_ids).await?;
        let (matched, row_held): (Vec<_>, Vec<_>) = matched
            .into_iter()
            .partition(|one| locked.get(one.filing.return_id).is_some());
        let held = order_held.iter().chain(&row_held);
        let mut events = sorted(
            matched
                .iter()
                .filter(|one| one.named_by.is_some())
                .map(|one| one.filing.first_event),
        );
        let seen = store::read_inbox(tx, &self.consumer, &events).await?;
        events.retain(|event| !seen.contains(event));

        let changes = Changes::decide(&matched, &seen, &locked, &orders, &self.terms(asked))?;
        store::insert_attempts(tx, &changes.attempts, &self.new_attempts(locked.now)).await?;
        store::insert_inbox(tx, &self.consumer, &events, locked.now).await?;
        for dead_letter in &dead_letters {
            store::insert_dead_letter(tx, dead_letter).await?;
        }
        transition::apply(tx, &mut locked, &self.topics, &changes.changes).await?;
        Ok(Claimed {
            began: Some(began),
            held: held.map(|one| one.index).collect(),
            attempts: changes.attempts,
            results: changes.results,
            dead: dead_letters.iter().map(|one| one.reason).collect(),
        })
    }

    fn terms(&self, asked: Moment) -> Terms {
        Terms {
            call_deadline: self.call_deadline,
            deadline: Expiry::new(asked, self.call_deadline),
            fresh_for: self.fresh_for(),
        }
    }

    /// For so long after its filing a return's first attempt is sent without a look-up. An attempt of it that a failover
    /// lost can only have been sent within this time: the key makes the repeat harmless. Without keys nothing does.
    fn fresh_for(&self) -> Duration {
        if self.native_idempotency {
            LOOK_UP_FIRST_AFTER.min(self.window.saturating_sub(self.call_deadline))
        } else {
            Duration::ZERO
        }
    }

    fn new_attempts(&self, now: OffsetDateTime) -> NewAttempts<'_> {
        NewAttempts {
            owner: self.owner,
            gateway: self.gateway.as_str(),
            call_deadline: now + self.call_deadline,
            native_idempotency: self.native_idempotency,
            now,
        }
    }

    fn count(&self, claimed: &Claimed) {
        if let Some(began) = claimed.began {
            let seconds = began.elapsed().as_secs_f64();
            self.metrics.intake.claim_seconds.observe(seconds);
        }
        let counted = claimed.results.len() + claimed.dead.len();
        if counted > 0 {
            self.metrics
                .intake
                .claim_group
                .observe(f64::from(u32::try_from(counted).unwrap_or(u32::MAX)));
        }
        for one in &claimed.results {
            one.span
                .set(|| [KeyValue::new(names::REFUND_RESULT, one.result)]);
            self.metrics
                .intake
                .messages
                .with_label_values(&[one.result])
                .inc();
            if one.result == CLAIMED {
                self.metrics.stages.claimed(&one.record);
            }
        }
        for reason in &claimed.dead {
            self.metrics
                .intake
                .messages
                .with_label_values(&["dead_letter"])
                .inc();
            self.metrics
                .intake
                .dead_letters
                .with_label_values(&[reason.as_str()])
                .inc();
        }
    }
}
