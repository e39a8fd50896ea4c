//! Messages in, attempts out: one transaction per group of returns.
//!
//! A committed claim is what makes an offset safe to store: from then on the rows of `refunds` drive everything. What
//! names a return is safe without one too, because a scan finds the return; a bad record is not, until it is kept.
//! Lock order: orders (shared), returns, then inserts. The body may run several times and has no other effects.

mod group;
mod plan;

use std::time::{Duration, Instant};

use shared::eligibility::PolicyArgs;
use shared::event::TopicArgs;
use shared::ids::ReturnId;
use shared::killpoint::kill_point;
use shared::retry::full_jitter;
use shared::transition;
use sqlx::MySqlConnection;
use sqlx::mysql::MySqlPool;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::attempt::Attempt;
use crate::dead_letter::{DeadLetter, Reason};
use crate::error::Error;
use crate::message::Record;
use crate::metrics::Metrics;
use crate::store::{self, NewAttempts, OrderLock};
pub(crate) use group::sorted;
use group::{Group, Notice};
use plan::Plan;
pub(crate) use plan::trace;

/// Conflicts pass within milliseconds; an outage is asked about once a second.
const RETRY_BASE: Duration = Duration::from_millis(5);
const RETRY_CAP: Duration = Duration::from_secs(1);

/// Claims on behalf of this process.
#[derive(Debug, Clone)]
pub struct Claimer {
    pub pool: MySqlPool,
    pub topics: TopicArgs,
    pub policy: PolicyArgs,
    /// Our name in the inbox.
    pub consumer: String,
    pub owner: Uuid,
    pub gateway: &'static str,
    pub native_idempotency: bool,
    pub call_deadline: Duration,
    pub metrics: Metrics,
    pub stop: CancellationToken,
}

/// What a transaction wrote; counted after its commit only.
#[derive(Debug, Default)]
struct Claimed {
    attempts: Vec<Attempt>,
    /// What became of each record that names a return.
    results: Vec<&'static str>,
    dead: Vec<Reason>,
}

impl Claimer {
    /// Claims the returns that these records name; what cannot be used becomes a dead letter. Once this returns,
    /// the records' offsets may be stored. Not cancel-safe: run it in a task of its own.
    ///
    /// # Errors
    /// Only when stopping, or when not even dead letters can be written: do not store the offsets.
    pub async fn claim_records(&self, records: &[Record]) -> Result<Vec<Attempt>, Error> {
        self.claim_group(Group::of_records(records)).await
    }

    /// Claims returns that a scan found. Not cancel-safe: run it in a task of its own.
    ///
    /// # Errors
    /// Only when stopping.
    pub async fn claim_found(&self, found: &[ReturnId]) -> Result<Vec<Attempt>, Error> {
        self.claim_group(Group::of_found(found)).await
    }

    /// All together; if that fails for good or somebody holds a row, one by one, so that one return does not hold up the
    /// others.
    async fn claim_group(&self, group: Group<'_>) -> Result<Vec<Attempt>, Error> {
        let error = match self.until_done(&group).await {
            Err(error) if !self.is_stopping(&error) => error,
            done => return done,
        };
        tracing::warn!(cause = ?error, returns = group.notices.len(), "a group cannot be claimed together");
        let mut attempts = self.write_letters(group.letters).await?;
        for notice in group.notices {
            attempts.extend(self.claim_alone(notice).await?);
        }
        Ok(attempts)
    }

    async fn claim_alone(&self, notice: Notice<'_>) -> Result<Vec<Attempt>, Error> {
        let (return_id, letter) = (notice.return_id, notice.letter(Reason::ClaimFailed));
        let group = Group::of_one(notice);
        let error = match self.until_done(&group).await {
            Err(error) if !self.is_stopping(&error) => error,
            done => return done,
        };
        if error.is_lock_wait() {
            // Only what names a return can be left to the scan; nobody else would find a bad record.
            let letters = self.unmatched(&group).await?;
            if !letters.is_empty() {
                return self.write_letters(letters).await;
            }
            tracing::warn!(cause = ?error, return.id = %return_id, "somebody holds a return or its order: left to the scan");
            self.metrics.messages.with_label_values(&["left"]).inc();
            return Ok(Vec::new());
        }
        tracing::error!(cause = ?error, return.id = %return_id, "a return cannot be claimed");
        self.metrics
            .permanent_failures
            .with_label_values(&["claim"])
            .inc();
        self.write_letters(letter.into_iter().collect()).await
    }

    /// The records of a group that fit no return.
    async fn unmatched<'a>(&self, group: &Group<'a>) -> Result<Vec<DeadLetter<'a>>, Error> {
        let mut tries = 0;
        loop {
            let filings = async {
                let mut conn = self.pool.acquire().await?;
                store::read_filings(&mut conn, &group.returns()).await
            };
            match filings.await {
                Ok(filings) => return Ok(group.match_filings(&filings).1),
                Err(error) if error.is_transient() && !self.stop.is_cancelled() => {
                    let pause = tokio::time::sleep(full_jitter(tries, RETRY_BASE, RETRY_CAP));
                    self.stop.run_until_cancelled(pause).await;
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn write_letters(&self, letters: Vec<DeadLetter<'_>>) -> Result<Vec<Attempt>, Error> {
        self.until_done(&Group::of_letters(letters)).await
    }

    /// Whether a claim ended early because the process stops.
    fn is_stopping(&self, error: &Error) -> bool {
        error.is_transient() && self.stop.is_cancelled()
    }

    /// Runs the transaction until it commits, fails for good, waits in vain for a return that somebody holds, or the
    /// process stops.
    async fn until_done(&self, group: &Group<'_>) -> Result<Vec<Attempt>, Error> {
        let mut tries = 0;
        loop {
            match self.claim_once(group).await {
                Ok(claimed) => return Ok(self.count(claimed)),
                Err(error) if error.is_lock_wait() && !group.notices.is_empty() => {
                    return Err(error);
                }
                Err(error) if error.is_transient() && !self.stop.is_cancelled() => {
                    self.metrics
                        .transient_failures
                        .with_label_values(&["claim"])
                        .inc();
                    tracing::warn!(cause = ?error, tries, "a claim is run again");
                    let pause = tokio::time::sleep(full_jitter(tries, RETRY_BASE, RETRY_CAP));
                    self.stop.run_until_cancelled(pause).await;
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn claim_once(&self, group: &Group<'_>) -> Result<Claimed, Error> {
        if group.is_empty() {
            return Ok(Claimed::default());
        }
        // Before the transaction, so that our clock's deadline is never later than the row's.
        let began = Instant::now();
        let mut tx = self.pool.begin().await?;
        let claimed = match self.write(&mut tx, group, began + self.call_deadline).await {
            Ok(claimed) => claimed,
            Err(error) => {
                // At once: a dropped transaction keeps its locks until the connection is used again.
                let _ = tx.rollback().await;
                return Err(error);
            }
        };
        tx.commit().await?;
        self.metrics
            .claim_seconds
            .observe(began.elapsed().as_secs_f64());
        kill_point("consumer.after_claim");
        Ok(claimed)
    }

    async fn write(
        &self,
        tx: &mut MySqlConnection,
        group: &Group<'_>,
        deadline: Instant,
    ) -> Result<Claimed, Error> {
        let filings = store::read_filings(tx, &group.returns()).await?;
        let (matched, letters) = group.match_filings(&filings);

        let order_ids = sorted(matched.iter().map(|one| one.filing.order_id));
        let orders = store::lock_orders(tx, &order_ids, OrderLock::Share).await?;
        let return_ids = sorted(matched.iter().map(|one| one.filing.return_id));
        let mut locked = transition::lock(tx, &return_ids).await?;
        let mut events = sorted(
            matched
                .iter()
                .filter(|one| one.named)
                .map(|one| one.filing.first_event),
        );
        let seen = store::read_inbox(tx, &self.consumer, &events).await?;
        events.retain(|event| !seen.contains(event));

        let plan = Plan::make(
            &matched,
            &seen,
            &locked,
            &orders,
            &self.policy,
            self.call_deadline,
            deadline,
        )?;
        store::insert_attempts(tx, &plan.attempts, &self.new_attempts(locked.now)).await?;
        store::insert_inbox(tx, &self.consumer, &events, locked.now).await?;
        for letter in &letters {
            store::insert_dead_letter(tx, letter).await?;
        }
        transition::apply(tx, &mut locked, &self.topics, &plan.changes).await?;
        Ok(Claimed {
            attempts: plan.attempts,
            results: plan.results,
            dead: letters.iter().map(|letter| letter.reason).collect(),
        })
    }

    fn new_attempts(&self, now: OffsetDateTime) -> NewAttempts<'_> {
        NewAttempts {
            owner: self.owner,
            gateway: self.gateway,
            call_deadline: now + self.call_deadline,
            native_idempotency: self.native_idempotency,
            now,
        }
    }

    fn count(&self, claimed: Claimed) -> Vec<Attempt> {
        let counted = claimed.results.len() + claimed.dead.len();
        self.metrics
            .claim_group
            .observe(f64::from(u32::try_from(counted).unwrap_or(u32::MAX)));
        for result in claimed.results {
            self.metrics.messages.with_label_values(&[result]).inc();
        }
        for reason in claimed.dead {
            self.metrics
                .messages
                .with_label_values(&["dead_letter"])
                .inc();
            self.metrics
                .dead_letters
                .with_label_values(&[reason.code()])
                .inc();
        }
        claimed.attempts
    }
}
