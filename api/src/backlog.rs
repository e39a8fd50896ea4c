//! Backpressure: new filings are refused while too much waits in the outbox, so that an outage of Kafka or of the
//! relays cannot fill the database's disk.
//!
//! Must stay true: only rows and bytes refuse; age alone raises an alarm, because an outage by itself must not stop
//! filing. What is not known is refused too, at the start as later. Reads and retries of filings that have a response are
//! never refused. A refused filing has written nothing.
//! The other writers of the outbox are not refused: they add at most a few events to returns that were filed. Parked
//! rows do not count; they are in a table of their own.

mod measurer;
mod monitor;

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use shared::runtime::db::Database;
use shared::runtime::ops::Check;
use tokio::sync::watch;
use tokio::time::timeout_at;

use self::monitor::Monitor;
use crate::error::{ApiError, Excess};
use crate::metrics::Metrics;
use crate::store::{Backlog, Shown};

/// How much may wait in the outbox while Kafka or the relays are away.
#[derive(Debug, Clone, Args)]
pub struct BacklogArgs {
    /// Rows in the outbox above which new filings get 503 with Retry-After. They are accepted again at 80 % of it.
    /// A slow relay (11,000 rows/s) publishes the default number in a quarter of an hour; it takes about 3 GiB of disk
    /// with this system's small events. Too low refuses customers in an outage that the disk could have bridged; too
    /// high fills the disk, prolongs the end of an outage and slows measuring (2 s per million rows). The api may notice
    /// two minutes and one measurement late that a limit is exceeded: leave room for that. An outbox that cannot be
    /// measured within ten minutes is refused too.
    #[arg(long, env = "BACKLOG_MAX_ROWS", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub backlog_max_rows: u64,

    /// MiB of payload in the outbox above which new filings get 503, as for BACKLOG_MAX_ROWS. On disk a row takes
    /// about 300 bytes more than its payload. Too low refuses filings because of a few large events; too high fills the
    /// disk before the limit of rows is reached.
    #[arg(long, env = "BACKLOG_MAX_MIB", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub backlog_max_mib: u64,

    /// Seconds after which the oldest event in the outbox raises an alarm (a metric and one log line). It never
    /// refuses a filing. Too low raises an alarm at every restart of a broker; too high reports late that nothing is
    /// published.
    #[arg(long, env = "BACKLOG_ALARM_AGE_SECS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub backlog_alarm_age_secs: u64,
}

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    rows: u64,
    bytes: u64,
    alarm_age: Duration,
}

/// The last measurement, and the decision that follows from it.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    known: Option<Known>,
    refusing: Option<Excess>,
}

/// A measurement, on the clock of this process.
#[derive(Debug, Clone, Copy)]
struct Known {
    backlog: Backlog,
    oldest_age: Duration,
    at: Instant,
}

/// Decides whether a filing is accepted. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    limits: Limits,
    state: watch::Receiver<State>,
}

/// A measurement older than this is shown as overdue: twice the longest pause.
const OVERDUE: Duration = measurer::PAUSE_MAX.saturating_mul(2);
/// Filings are not accepted by a measurement that is older: much may have come since. Far above the longest pause and the
/// lease of an api that ended while it measured.
const EXPIRES: Duration = Duration::from_secs(600);
/// How long a filing waits for the first measurement of an api that has just started.
const FIRST_MEASUREMENT: Duration = Duration::from_secs(2);

/// The gate, and the monitor that opens and closes it.
pub(crate) fn gate(args: &BacklogArgs, db: &Database, metrics: Arc<Metrics>) -> (Gate, Monitor) {
    let limits = Limits::from(args);
    let (sender, state) = watch::channel(State::default());
    (
        Gate { limits, state },
        Monitor::new(db, limits, metrics, sender),
    )
}

impl From<&BacklogArgs> for Limits {
    fn from(args: &BacklogArgs) -> Self {
        Self {
            rows: args.backlog_max_rows,
            bytes: args.backlog_max_mib * 1024 * 1024,
            alarm_age: Duration::from_secs(args.backlog_alarm_age_secs),
        }
    }
}

impl Limits {
    /// Why to refuse from now on, if at all. A count that has not ended says that there is at least so much.
    fn refusal(&self, shown: &Shown, refusing: Option<Excess>) -> Option<Excess> {
        let counted = shown.counted.and_then(|counted| self.above(&counted));
        let measured = shown.measurement.map(|measured| measured.backlog);
        counted.or_else(|| self.decide(&measured?, refusing))
    }

    /// The gate closes above a limit. It opens when rows and bytes are both at most 80 % of their limits; between the two
    /// marks it stays as it is, because it would flap at a single mark.
    fn decide(&self, backlog: &Backlog, refusing: Option<Excess>) -> Option<Excess> {
        let marks = Self {
            rows: resume(self.rows),
            bytes: resume(self.bytes),
            ..*self
        };
        match refusing {
            None => self.above(backlog),
            Some(_) => self.above(backlog).or_else(|| marks.above(backlog)),
        }
    }

    fn above(&self, backlog: &Backlog) -> Option<Excess> {
        if backlog.rows > self.rows {
            Some(Excess::Rows)
        } else if backlog.bytes > self.bytes {
            Some(Excess::Bytes)
        } else {
            None
        }
    }

    fn is_too_old(&self, known: &Known) -> bool {
        known.oldest_age > self.alarm_age
    }
}

impl Known {
    /// `None` if nothing was measured, or before this machine started. The row was read after `asked`.
    fn new(shown: &Shown, asked: Instant) -> Option<Self> {
        let measured = shown.measurement?;
        let age = (shown.now - measured.at).try_into().ok()?;
        Some(Self {
            backlog: measured.backlog,
            oldest_age: measured.oldest_age(),
            at: asked.checked_sub(age)?,
        })
    }
}

impl State {
    /// Why a filing is refused now, if it is.
    fn refusal(&self) -> Option<Excess> {
        let is_known = self.known.is_some_and(|it| it.at.elapsed() <= EXPIRES);
        self.refusing.or((!is_known).then_some(Excess::Unmeasured))
    }
}

/// 80 % of a limit, rounded down.
fn resume(limit: u64) -> u64 {
    limit.saturating_mul(4) / 5
}

impl Gate {
    /// Refuses a new filing while too much waits.
    ///
    /// # Errors
    /// [`ApiError::BacklogFull`].
    pub(crate) fn admit(&self) -> Result<(), ApiError> {
        match self.state.borrow().refusal() {
            Some(excess) => Err(ApiError::BacklogFull(excess)),
            None => Ok(()),
        }
    }

    /// Waits until it is known how much waits: an api that has just started does not know at once. Cancel-safe.
    pub(crate) async fn measured(&self, deadline: Instant) {
        let is_known = |state: &State| state.refusal() != Some(Excess::Unmeasured);
        if is_known(&self.state.borrow()) {
            return;
        }
        let until = deadline.min(Instant::now() + FIRST_MEASUREMENT);
        let mut state = self.state.clone();
        // If it is not known in time, or the api stops, the filing is refused.
        let _ = timeout_at(until.into(), state.wait_for(is_known)).await;
    }

    /// For `/readyz?verbose`. A backlog above its limit does not make the api unready: reads still work, and it would be
    /// a larger outage to take every api out of service.
    pub(crate) fn checks(&self) -> Vec<Check> {
        let (state, limits) = (*self.state.borrow(), &self.limits);
        let known = state.known;
        let quantity = |name, value: Option<u64>, limit: u64| Check {
            name,
            value: value.map_or_else(|| "unknown".to_owned(), |value| value.to_string()),
            limit: format!("{limit}, accepts again at {}", resume(limit)),
            over: value.is_some_and(|value| value > limit),
        };
        vec![
            quantity("outbox_rows", known.map(|it| it.backlog.rows), limits.rows),
            quantity(
                "outbox_payload_bytes",
                known.map(|it| it.backlog.bytes),
                limits.bytes,
            ),
            seconds(
                "outbox_oldest_age_seconds",
                known.map(|it| it.oldest_age),
                limits.alarm_age,
            ),
            seconds(
                "outbox_measured_seconds_ago",
                known.map(|it| it.at.elapsed()),
                OVERDUE,
            ),
            Check {
                name: "filing",
                value: match state.refusal() {
                    Some(excess) => format!("refused by {}", excess.code()),
                    None => "accepted".to_owned(),
                },
                limit: "rows and bytes above".to_owned(),
                over: state.refusal().is_some(),
            },
        ]
    }
}

fn seconds(name: &'static str, value: Option<Duration>, limit: Duration) -> Check {
    Check {
        name,
        value: value.map_or_else(
            || "unknown".to_owned(),
            |value| format!("{:.1}", value.as_secs_f64()),
        ),
        limit: limit.as_secs().to_string(),
        over: value.is_some_and(|value| value > limit),
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::store::{Lease, Measurement};

    const LIMITS: Limits = Limits {
        rows: 100,
        bytes: 1_000,
        alarm_age: Duration::from_secs(60),
    };

    fn decided(rows: u64, bytes: u64, refusing: Option<Excess>) -> Option<Excess> {
        LIMITS.decide(&backlog(rows, bytes), refusing)
    }

    fn backlog(rows: u64, bytes: u64) -> Backlog {
        Backlog {
            rows,
            bytes,
            oldest_at: None,
        }
    }

    fn known(age: Duration) -> Known {
        Known {
            backlog: backlog(1, 1),
            oldest_age: Duration::ZERO,
            at: Instant::now().checked_sub(age).expect("up for so long"),
        }
    }

    #[test]
    fn p12_filings_are_refused_above_a_limit_and_not_at_it() {
        for (rows, bytes, expected) in [
            (0, 0, None),
            (100, 1_000, None),
            (101, 0, Some(Excess::Rows)),
            (0, 1_001, Some(Excess::Bytes)),
            (101, 1_001, Some(Excess::Rows)),
            (u64::MAX, u64::MAX, Some(Excess::Rows)),
        ] {
            assert_eq!(decided(rows, bytes, None), expected, "{rows} {bytes}");
        }
    }

    #[test]
    fn p12_filings_are_accepted_again_only_when_both_are_at_80_percent() {
        let was = Some(Excess::Rows);
        for (rows, bytes, expected) in [
            (100, 0, Some(Excess::Rows)),
            (81, 0, Some(Excess::Rows)),
            (80, 801, Some(Excess::Bytes)),
            (80, 1_001, Some(Excess::Bytes)),
            (81, 1_001, Some(Excess::Bytes)),
            (80, 800, None),
            (0, 0, None),
        ] {
            assert_eq!(decided(rows, bytes, was), expected, "{rows} {bytes}");
        }
    }

    #[test]
    fn p12_age_alone_raises_an_alarm_and_does_not_refuse() {
        let aged = |secs| Known {
            oldest_age: Duration::from_secs(secs),
            ..known(Duration::ZERO)
        };
        assert!(LIMITS.is_too_old(&aged(61)));
        assert!(!LIMITS.is_too_old(&aged(60)));
        assert_eq!(LIMITS.decide(&aged(61).backlog, None), None);
    }

    #[test]
    fn p12_what_is_not_known_is_refused() {
        let state = |known| State {
            known,
            refusing: None,
        };
        assert_eq!(state(None).refusal(), Some(Excess::Unmeasured));
        assert_eq!(state(Some(known(Duration::ZERO))).refusal(), None);
        let expired = EXPIRES + Duration::from_secs(1);
        assert_eq!(
            state(Some(known(expired))).refusal(),
            Some(Excess::Unmeasured)
        );
    }

    #[test]
    fn p12_a_count_that_has_not_ended_refuses_when_it_is_above_a_limit() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let measured = |rows| Measurement {
            backlog: backlog(rows, 0),
            at: now,
            took: Duration::ZERO,
        };
        let refusal = |counted: Option<u64>, rows: Option<u64>| {
            let shown = Shown {
                measurement: rows.map(measured),
                counted: counted.map(|rows| backlog(rows, 0)),
                is_due: false,
                lease: Lease {
                    is_ours: false,
                    until: now,
                },
                now,
            };
            LIMITS.refusal(&shown, None)
        };
        assert_eq!(refusal(Some(101), None), Some(Excess::Rows));
        assert_eq!(refusal(Some(101), Some(3)), Some(Excess::Rows));
        assert_eq!(refusal(Some(100), Some(3)), None);
        assert_eq!(refusal(Some(3), Some(101)), Some(Excess::Rows));
        assert_eq!(refusal(Some(100), None), None);
    }

    #[test]
    fn filings_are_accepted_again_below_the_smallest_limits() {
        assert_eq!((resume(1), resume(2), resume(5)), (0, 1, 4));
    }
}
