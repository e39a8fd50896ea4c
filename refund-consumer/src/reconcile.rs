//! Finds the work that no message brings: lost messages, approvals, retries, unclear outcomes, attempts whose owner died.
//!
//! Each kind of work has a loop, a connection and a share of the open attempts of its own: a scan that hangs, or thousands of
//! refunds that the provider settles in its own time, delay no other kind. A scan walks its index from a floor
//! (`floors.rs`) and hands the rows to the same claim and the same refund worker as a message. Any number of consumers
//! may run them: a claim decides on locked rows, and one conditional UPDATE decides which process takes an attempt over.

mod waiting;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use shared::domain::ids::ReturnId;
use shared::domain::refund::{Attempt, AttemptId, AttemptState};
use shared::runtime::clock::{Expiry, Moment};
use shared::runtime::db::Database;
use shared::runtime::tasks::{Backoff, Outage, every};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::attempt::{OwnedAttempt, SendState};
use crate::claim::Claimer;
use crate::error::Error;
use crate::floors::Floors;
use crate::gateway::RefundGateway;
use crate::metrics::Metrics;
use crate::refund::RefundWorker;
use crate::stages::Submitted;
use crate::store::{self, Due, DueKind, TakeOver, Traces, Waiting};

/// Rows per statement.
const PAGE: usize = 100;
const BACKOFF_CAP: Duration = Duration::from_secs(5);
/// For one statement.
const DEADLINE: Duration = Duration::from_secs(5);
/// Until the next look whether there is room; no query runs before there is.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(100);
/// Messages leave a quarter of the open attempts to the scans. Each kind that has a quota may hold this part of all.
const QUOTA_DIVISOR: usize = 16;
/// Re-checks use at most this part of the calls at the same time, and at most this many: at 100 ms a call that is 80 look-ups
/// a second, enough for a million refunds a day.
const RECHECK_DIVISOR: usize = 8;
const RECHECKS_AT_ONCE: usize = 8;

/// What one loop looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Attempts that are sent or unknown: the customer may have been paid.
    Unclear,
    /// Attempts that nobody has sent: retries, and those whose owner died.
    Claimed,
    /// Attempts that the provider accepted and settles in its own time.
    Pending,
    /// Approved returns.
    Approved,
    /// New returns whose message is late.
    Initiated,
    /// Paid attempts: a provider can take a refund back days later, and nobody else would learn of it. They are looked up only
    /// by calls that no payment waits for. `shared::domain::refund` has the dates.
    Recheck,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::Unclear,
        Self::Claimed,
        Self::Pending,
        Self::Approved,
        Self::Initiated,
        Self::Recheck,
    ];

    /// The task's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unclear => "scan for unclear attempts",
            Self::Claimed => "scan for claimed attempts",
            Self::Pending => "scan for pending attempts",
            Self::Approved => "scan for approved returns",
            Self::Initiated => "scan for new returns",
            Self::Recheck => "scan for paid attempts",
        }
    }
}

/// The loop of one kind; see the module.
#[derive(Debug)]
pub struct Reconciler<G> {
    pub kind: Kind,
    pub db: Database,
    pub claimer: Arc<Claimer>,
    pub worker: Arc<RefundWorker<G>>,
    pub floors: Floors,
    pub interval: Duration,
    pub initiated_grace_secs: u32,
    pub metrics: Metrics,
    pub sidelined: HashMap<ReturnId, Instant>,
    /// What this loop took, while it is open.
    pub taken: HashSet<AttemptId>,
}

/// How a pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Nothing more is due that this process can take now.
    Whole,
    NoRoom,
}

impl<G: RefundGateway> Reconciler<G> {
    /// Scans until `stop`. Not cancel-safe: run it in a task of its own.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut passes = every(self.interval, &stop);
        let mut outage = Outage::new(self.kind.name());
        let retry = Backoff {
            base: self.interval,
            cap: BACKOFF_CAP,
        };
        let mut failures = 0;
        while passes.next().await {
            match self.pass(&stop).await {
                Ok(pass) => {
                    failures = 0;
                    outage.ended();
                    passes.pause_next(self.pause_after(pass));
                }
                Err(error) => {
                    failures += 1;
                    self.metrics
                        .work
                        .transient_failures
                        .with_label_values(&["reconcile"])
                        .inc();
                    outage.failed(&error);
                    passes.pause_next(self.interval + retry.pause(failures));
                }
            }
        }
    }

    /// Consumers that started together should not scan together.
    fn pause_after(&self, pass: Pass) -> Duration {
        let jitter = Backoff {
            base: self.interval,
            cap: self.interval,
        };
        match pass {
            Pass::Whole => self.interval / 2 + jitter.pause(0),
            Pass::NoRoom => self.interval.min(NO_ROOM_PAUSE),
        }
    }

    async fn pass(&mut self, stop: &CancellationToken) -> Result<Pass, Error> {
        let open = DueKind::Open;
        match self.kind {
            Kind::Unclear => match self.due(open(AttemptState::Sent), stop).await? {
                Pass::Whole => self.due(open(AttemptState::Unknown), stop).await,
                Pass::NoRoom => Ok(Pass::NoRoom),
            },
            Kind::Claimed => self.due(open(AttemptState::Claimed), stop).await,
            Kind::Pending => self.due(open(AttemptState::Pending), stop).await,
            Kind::Recheck => self.due(DueKind::Recheck, stop).await,
            Kind::Approved => {
                let mut pass = Pass::Whole;
                for reviewed in [false, true] {
                    if pass == Pass::Whole {
                        pass = self.waiting(Waiting::Approved { reviewed }, stop).await?;
                    }
                }
                Ok(pass)
            }
            Kind::Initiated => {
                let grace_secs = self.initiated_grace_secs;
                self.waiting(Waiting::Initiated { grace_secs }, stop).await
            }
        }
    }

    /// How many attempts this loop may take now. New returns count as a backlog, whether a message or a scan names them;
    /// each other kind has its quota, so that none takes the room of all.
    fn room(&mut self) -> usize {
        let worker = &self.worker;
        self.taken.retain(|id| worker.open.contains(*id));
        let (quota, room) = match self.kind {
            Kind::Initiated => return worker.room_for_messages(),
            Kind::Recheck => (
                (worker.parallel_calls / RECHECK_DIVISOR).clamp(1, RECHECKS_AT_ONCE),
                worker.free_calls().min(worker.room_for_messages()),
            ),
            Kind::Unclear | Kind::Claimed | Kind::Pending | Kind::Approved => {
                ((worker.max_open / QUOTA_DIVISOR).max(1), worker.room())
            }
        };
        quota.saturating_sub(self.taken.len()).min(room)
    }

    fn take(&mut self, attempts: Vec<OwnedAttempt>) {
        self.taken.extend(attempts.iter().map(|attempt| attempt.id));
        self.worker.take(attempts);
    }

    /// Takes over attempts that are due, as long as there is room.
    async fn due(&mut self, kind: DueKind, stop: &CancellationToken) -> Result<Pass, Error> {
        while !stop.is_cancelled() {
            let room = self.room().min(PAGE);
            if room == 0 {
                return Ok(Pass::NoRoom);
            }
            let asked = Moment::now();
            let (now, mut due) = self.due_attempts(kind, room).await?;
            due.retain(|due| !self.worker.open.contains(due.attempt.id));
            due.truncate(room);
            let full = due.len() == room;
            let Some(now) = now.filter(|_| !due.is_empty()) else {
                return Ok(Pass::Whole);
            };
            let taken = self.take_over(due, now, asked).await?;
            self.count("due", taken.len());
            let progressed = !taken.is_empty();
            self.take(taken);
            if !full || !progressed {
                break;
            }
        }
        Ok(Pass::Whole)
    }

    /// Our own attempts may be due too, for example while another transaction holds their rows. They must not hide the
    /// others.
    async fn due_attempts(
        &self,
        kind: DueKind,
        room: usize,
    ) -> Result<(Option<OffsetDateTime>, Vec<Due>), Error> {
        let limit = u32::try_from(room + self.worker.open.count()).unwrap_or(u32::MAX);
        let gateway = self.worker.gateway.name().clone();
        let floor = self.floors.of(kind.range());
        let due = self.db.run("due_attempts", DEADLINE, move |conn| {
            Box::pin(async move {
                store::due_attempts(conn, gateway.as_str(), kind, floor, limit).await
            })
        });
        due.await
    }

    async fn take_over(
        &self,
        mut due: Vec<Due>,
        now: OffsetDateTime,
        asked: Moment,
    ) -> Result<Vec<OwnedAttempt>, Error> {
        let by = TakeOver {
            owner: self.claimer.owner,
            gateway: self.claimer.gateway.clone(),
            native_idempotency: self.claimer.native_idempotency,
            now,
            call_deadline: now + self.claimer.call_deadline,
        };
        let terms = by.clone();
        let taken = self.db.run("take_over", DEADLINE, move |conn| {
            Box::pin(async move {
                let taken = store::take_over(conn, &due, &terms).await?;
                due.retain(|due| taken.contains(&due.attempt.id));
                let ids: Vec<AttemptId> = due.iter().map(|due| due.attempt.id).collect();
                let traces = store::read_traces(conn, &ids).await?;
                Ok::<_, Error>((due, traces))
            })
        });
        let (taken, mut traces) = taken.await?;
        let owned = |Due { attempt, order_id }: Due| {
            let Traces { last, earlier } = traces.remove(&attempt.id).unwrap_or_default();
            OwnedAttempt {
                trace: last,
                earlier,
                id: attempt.id,
                order_id,
                sent: send_state(&attempt, &by, self.claimer.window),
                key: attempt.key,
                amount: attempt.amount,
                owned_until: by.call_deadline,
                deadline: Expiry::new(asked, self.claimer.call_deadline),
                submitted: submitted(attempt.first_sent_at, now),
            }
        };
        Ok(taken.into_iter().map(owned).collect())
    }

    fn count(&self, kind: &str, found: usize) {
        let found = u64::try_from(found).unwrap_or(u64::MAX);
        self.metrics
            .work
            .found_waiting
            .with_label_values(&[kind])
            .inc_by(found);
    }
}

/// As far as the row shows, by the database's clock.
fn submitted(first_sent_at: Option<OffsetDateTime>, now: OffsetDateTime) -> OnceLock<Submitted> {
    let ago = first_sent_at.and_then(|first| (now - first).try_into().ok());
    ago.map(|ago| Submitted::ago(ago).into())
        .unwrap_or_default()
}

/// What earlier calls may have done at the gateway, as of the take-over.
fn send_state(due: &Attempt, by: &TakeOver, window: Duration) -> SendState {
    let may_resend = || {
        by.native_idempotency
            && due.state.is_open()
            && due.sent_with_key
            && due
                .first_sent_at
                .is_some_and(|first| by.call_deadline < first + window)
    };
    match (due.state, &due.gateway_ref) {
        (AttemptState::Pending, Some(gateway_ref)) => SendState::Pending {
            gateway_ref: gateway_ref.clone(),
        },
        (AttemptState::Succeeded, Some(gateway_ref)) => SendState::Paid {
            gateway_ref: gateway_ref.clone(),
        },
        (AttemptState::Claimed, _) if due.first_sent_at.is_none() => SendState::Unsent,
        _ => SendState::MaybeSent {
            may_resend: may_resend(),
            checks: due.checks,
        },
    }
}

#[cfg(test)]
mod tests;
