//! Backpressure: new filings are refused while too much waits in the outbox, so that an outage of Kafka or of the
//! relays cannot fill the database's disk.
//!
//! Must stay true: only rows and bytes refuse, age alone alarms (an outage by itself must not stop filing); reads and
//! repeats of answered filings are never refused; what is refused has written nothing. The other writers of the outbox
//! are not refused: they add at most a few events to returns that were filed. Parked rows do not count, they are in a
//! table of their own.

mod meter;

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::runtime::ops::Check;
use sqlx::mysql::MySqlConnectOptions;
use tokio::sync::watch;

use crate::config::BacklogArgs;
use crate::error::ApiError;
use crate::metrics::Metrics;

use meter::Meter;

/// What waits in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Backlog {
    pub(crate) rows: u64,
    /// Of payloads.
    pub(crate) bytes: u64,
    pub(crate) oldest_age: Duration,
}

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    rows: u64,
    bytes: u64,
    alarm_age: Duration,
}

/// Why new filings are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    Rows,
    Bytes,
}

/// The last measurement and what was decided by it.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// `None` until MySQL has answered for the first time: until then filings are accepted.
    measured: Option<(Backlog, Instant)>,
    refusing: Option<Excess>,
}

/// What filings ask before they are let in; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    limits: Limits,
    state: watch::Receiver<State>,
}

/// A measurement older than this is shown as overdue: the longest pause, and as long again to measure.
const OVERDUE: Duration = meter::PAUSE_MAX.saturating_mul(2);

/// The gate, and the task that opens and closes it.
pub(crate) fn open(
    args: &BacklogArgs,
    options: MySqlConnectOptions,
    metrics: Arc<Metrics>,
) -> (Gate, Meter) {
    let limits = Limits::from(args);
    let (sender, state) = watch::channel(State::default());
    (
        Gate { limits, state },
        Meter::new(options, limits, metrics, sender),
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
    /// Why to refuse from now on. Above a limit; once refusing, until rows and bytes are both at 80 % of theirs or
    /// below: between the two marks the gate stays as it is, or it would flap at the limit.
    fn judge(&self, backlog: &Backlog, refusing: Option<Excess>) -> Option<Excess> {
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

impl Excess {
    /// Stable metric label.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Bytes => "bytes",
        }
    }
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

    /// For `/readyz?verbose`. A backlog above its limit does not make the api unready: reads still work, and taking
    /// every api out of service would be the larger outage.
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

    fn judged(rows: u64, bytes: u64, refusing: Option<Excess>) -> Option<Excess> {
        let oldest_age = Duration::ZERO;
        LIMITS.judge(
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
            assert_eq!(judged(rows, bytes, None), expected, "{rows} {bytes}");
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
            assert_eq!(judged(rows, bytes, was), expected, "{rows} {bytes}");
        }
    }

    #[test]
    fn p12_age_alone_alarms_and_does_not_refuse() {
        let old = Backlog {
            oldest_age: Duration::from_secs(61),
            ..Backlog::default()
        };
        assert!(LIMITS.is_too_old(&old));
        assert_eq!(LIMITS.judge(&old, None), None);
        assert!(!LIMITS.is_too_old(&Backlog {
            oldest_age: Duration::from_secs(60),
            ..old
        }));
    }

    #[test]
    fn the_smallest_limits_can_be_met_again() {
        assert_eq!((resume(1), resume(2), resume(5)), (0, 1, 4));
    }
}
