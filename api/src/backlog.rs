//! Backpressure: new filings are refused while too much waits in the outbox, so that an outage of Kafka or of the
//! relays cannot fill the database's disk.
//!
//! Must stay true: only rows and bytes refuse; age alone raises an alarm, because an outage by itself must not stop
//! filing. Reads and retries of filings that have a response are never refused. A refused filing has written nothing.
//! The other writers of the outbox are not refused: they add at most a few events to returns that were filed. Parked
//! rows do not count; they are in a table of their own.

mod monitor;

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use shared::runtime::db::Database;
use shared::runtime::ops::Check;
use tokio::sync::watch;

use self::monitor::Monitor;
use crate::error::{ApiError, Excess};
use crate::metrics::Metrics;
use crate::store::Backlog;

/// How much may wait in the outbox while Kafka or the relays are away.
#[derive(Debug, Clone, Args)]
pub struct BacklogArgs {
    /// Rows in the outbox above which new filings get 503 with Retry-After. They are accepted again at 80 % of it.
    /// A slow relay (11,000 rows/s) publishes the default number in a quarter of an hour; it takes about 3 GiB of disk
    /// with this system's small events. Too low refuses customers in an outage that the disk could have bridged; too
    /// high fills the disk, prolongs the end of an outage and slows measuring (2 s per million rows). The api may notice
    /// two minutes and one measurement late that a limit is exceeded: leave room for that.
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
    /// `None` until the first measurement: until then filings are accepted.
    measured: Option<(Backlog, Instant)>,
    refusing: Option<Excess>,
}

/// Decides whether a filing is accepted. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    limits: Limits,
    state: watch::Receiver<State>,
}

/// A measurement older than this is shown as overdue: twice the longest pause.
const OVERDUE: Duration = monitor::PAUSE_MAX.saturating_mul(2);

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
    /// Why to refuse from now on, if at all. The gate closes above a limit. It opens when rows and bytes are both at
    /// most 80 % of their limits; between the two marks it stays as it is, because it would flap at a single mark.
    fn decide(&self, backlog: &Backlog, refusing: Option<Excess>) -> Option<Excess> {
        let above = |rows: u64, bytes: u64| {
            if backlog.rows > rows {
                Some(Excess::Rows)
            } else if backlog.bytes > bytes {
                Some(Excess::Bytes)
            } else {
                None
            }
        };
        let over = above(self.rows, self.bytes);
        match refusing {
            None => over,
            Some(_) => over.or_else(|| above(resume(self.rows), resume(self.bytes))),
        }
    }

    fn is_too_old(&self, backlog: &Backlog) -> bool {
        backlog.oldest_age > self.alarm_age
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
        match self.state.borrow().refusing {
            Some(excess) => Err(ApiError::BacklogFull(excess)),
            None => Ok(()),
        }
    }

    /// For `/readyz?verbose`. A backlog above its limit does not make the api unready: reads still work, and it would be
    /// a larger outage to take every api out of service.
    pub(crate) fn checks(&self) -> Vec<Check> {
        let (state, limits) = (*self.state.borrow(), &self.limits);
        let (measured, since) = state.measured.unzip();
        let quantity = |name, value: Option<u64>, limit: u64| Check {
            name,
            value: value.map_or_else(|| "unknown".to_owned(), |value| value.to_string()),
            limit: format!("{limit}, accepts again at {}", resume(limit)),
            over: value.is_some_and(|value| value > limit),
        };
        vec![
            quantity("outbox_rows", measured.map(|it| it.rows), limits.rows),
            quantity(
                "outbox_payload_bytes",
                measured.map(|it| it.bytes),
                limits.bytes,
            ),
            seconds(
                "outbox_oldest_age_seconds",
                measured.map(|it| it.oldest_age),
                limits.alarm_age,
            ),
            seconds(
                "outbox_measured_seconds_ago",
                since.map(|at| at.elapsed()),
                OVERDUE,
            ),
            Check {
                name: "filing",
                value: match state.refusing {
                    Some(excess) => format!("refused by {}", excess.code()),
                    None => "accepted".to_owned(),
                },
                limit: "rows and bytes above".to_owned(),
                over: state.refusing.is_some(),
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
    use super::*;

    const LIMITS: Limits = Limits {
        rows: 100,
        bytes: 1_000,
        alarm_age: Duration::from_secs(60),
    };

    fn decided(rows: u64, bytes: u64, refusing: Option<Excess>) -> Option<Excess> {
        let oldest_age = Duration::ZERO;
        LIMITS.decide(
            &Backlog {
                rows,
                bytes,
                oldest_age,
            },
            refusing,
        )
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
        let old = Backlog {
            oldest_age: Duration::from_secs(61),
            ..Backlog::default()
        };
        assert!(LIMITS.is_too_old(&old));
        assert_eq!(LIMITS.decide(&old, None), None);
        assert!(!LIMITS.is_too_old(&Backlog {
            oldest_age: Duration::from_secs(60),
            ..old
        }));
    }

    #[test]
    fn filings_are_accepted_again_below_the_smallest_limits() {
        assert_eq!((resume(1), resume(2), resume(5)), (0, 1, 4));
    }
}
