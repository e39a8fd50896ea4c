//! What waits: returns and refunds that no consumer works on, refunds that need a person, and records that could not be
//! used.

use shared::domain::refund::OVERDUE;

use super::report::{Check, Report};
use crate::session::Session;
use crate::store::findings::{Findings, findings};
use crate::text::counted;

/// Needs a database that has the schema of this build.
pub(super) async fn examine(session: &Session, report: &mut Report) {
    let found = session.read("findings", |conn| {
        Box::pin(findings(conn, OVERDUE.whole_seconds()))
    });
    match found.await {
        Ok(found) => checks(&found)
            .into_iter()
            .for_each(|check| report.add(check)),
        Err(error) => report.add(Check::of_error("refunds", &error)),
    }
}

/// Work for a person is a warning. Work that a consumer should have done is a failure.
fn checks(found: &Findings) -> [Check; 5] {
    let refunds = "see `returnsctl refunds list`: each wants a person's decision";
    [
        warn_unless_none("parked refunds", found.parked_attempts, "attempt", refunds),
        warn_unless_none("failed refunds", found.failed_returns, "return", refunds),
        fail_unless_none(
            "unclaimed returns",
            found.unclaimed_returns,
            "return",
            "no refund consumer is at work: start one, or see its log",
        ),
        fail_unless_none(
            "overdue refunds",
            found.overdue_attempts,
            "attempt",
            "see that a refund consumer runs for the gateway of these attempts, and its log: `returnsctl refunds \
             list --state claimed --state sent --state pending --state unknown`",
        ),
        warn_unless_none(
            "dead letters",
            found.dead_letters,
            "record",
            "see `returnsctl dead-letters list`, then redrive or discard each",
        ),
    ]
}

fn warn_unless_none(name: &str, count: i64, noun: &str, advice: &str) -> Check {
    match count {
        0 => Check::ok(name, "none"),
        count => Check::warn(name, counted(count, noun), advice),
    }
}

fn fail_unless_none(name: &str, count: i64, noun: &str, advice: &str) -> Check {
    match count {
        0 => Check::ok(name, "none"),
        count => {
            let (counted, minutes) = (counted(count, noun), OVERDUE.whole_minutes());
            Check::fail(
                name,
                format!("{counted} due for more than {minutes} min"),
                advice,
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Verdict::{Fail, Ok, Warn};

    #[test]
    fn work_for_a_person_is_a_warning_and_overdue_work_of_a_consumer_a_problem() {
        let none = Findings {
            parked_attempts: 0,
            failed_returns: 0,
            overdue_attempts: 0,
            unclaimed_returns: 0,
            dead_letters: 0,
        };
        let verdicts = |found: Findings| checks(&found).map(|check| check.verdict());
        assert_eq!(verdicts(none), [Ok, Ok, Ok, Ok, Ok]);
        let person = Findings {
            parked_attempts: 1,
            failed_returns: 2,
            dead_letters: 3,
            ..none
        };
        assert_eq!(verdicts(person), [Warn, Warn, Ok, Ok, Warn]);
        let unattended = Findings {
            overdue_attempts: 1,
            unclaimed_returns: 1,
            ..none
        };
        assert_eq!(verdicts(unattended), [Ok, Ok, Fail, Fail, Ok]);
    }
}
