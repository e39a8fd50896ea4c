//! What waits: returns and refunds that no consumer works on, refunds that need a person, and records that could not be
//! used.

use shared::domain::refund::{OVERDUE, OverdueRechecks, overdue_rechecks};

use super::report::{Check, Report};
use crate::session::{CHECK_DEADLINE, Session};
use crate::store::findings::{Findings, findings};
use crate::text::{counted, printable, span};
use crate::waiting::Kind;

/// Needs a database that has the schema of this build.
pub(super) async fn examine(session: &Session, report: &mut Report) {
    let found = session.check("findings", |conn| {
        Box::pin(findings(conn, OVERDUE.whole_seconds(), CHECK_DEADLINE))
    });
    match found.await {
        Ok(found) => checks(&found)
            .into_iter()
            .for_each(|check| report.add(check)),
        Err(error) => report.add(Check::of_error("refunds", &error)),
    }
    let overdue = session.check("overdue_rechecks", |conn| Box::pin(overdue_rechecks(conn)));
    report.add(match overdue.await {
        Ok(overdue) => rechecks(&overdue),
        Err(error) => Check::of_error(RECHECKS, &error),
    });
}

const RECHECKS: &str = "re-checks of paid refunds";

/// No refund is unpaid because of them, so nothing is broken.
fn rechecks(overdue: &[OverdueRechecks]) -> Check {
    if overdue.is_empty() {
        return Check::ok(RECHECKS, "none is late");
    }
    let late = |one: &OverdueRechecks| {
        let (name, attempts) = (printable(&one.gateway), counted(one.attempts, "attempt"));
        let since = span(f64::from(
            i32::try_from(one.oldest_secs).unwrap_or(i32::MAX),
        ));
        format!("{name}: {attempts}, the oldest due for {since}")
    };
    let late: Vec<String> = overdue.iter().map(late).collect();
    Check::warn(
        RECHECKS,
        late.join("; "),
        "nobody learns whether these accounts have taken payments back: run a refund consumer with each GATEWAY_NAME for 30 \
         days after its last payment; if one runs, payments need all of GATEWAY_PARALLEL_CALLS or GATEWAY_RATE_PER_SEC",
    )
}

fn checks(found: &Findings) -> [Check; 8] {
    let refunds = "each wants a person's decision";
    [
        person_unless_none(
            Kind::ParkedRefunds,
            found.parked_attempts,
            "attempt",
            refunds,
        ),
        requests(found.mark_requests),
        person_unless_none(Kind::FailedRefunds, found.failed_returns, "return", refunds),
        person_unless_none(
            Kind::Reviews,
            found.in_review,
            "return",
            "an admin approves or rejects each by `POST /returns/{id}/approve` or `/reject`",
        ),
        fail_unless_none(
            Kind::UnclaimedReturns,
            found.unclaimed_returns,
            "return",
            "no refund consumer is at work: start one, or see its log",
        ),
        fail_unless_none(
            Kind::OverdueRefunds,
            found.overdue_attempts,
            "attempt",
            "see that a refund consumer runs for the gateway of these attempts, and its log",
        ),
        doubtful(found.doubtful_attempts),
        person_unless_none(
            Kind::DeadLetters,
            found.dead_letters,
            "record",
            "redrive or discard each",
        ),
    ]
}

/// The command that a person types first, and what it is for.
fn see(kind: Kind, then: &str) -> String {
    format!("see `{}`: {then}", kind.command())
}

/// Nothing can be decided about them here, and a provider that forgets old refunds causes some.
fn doubtful(count: i64) -> Check {
    let name = Kind::DoubtfulRefunds.title();
    match count {
        0 => Check::ok(name, "none"),
        count => Check::warn(
            name,
            format!(
                "{} paid, and the provider no longer confirms it",
                counted(count, "attempt")
            ),
            see(
                Kind::DoubtfulRefunds,
                "ask the provider whether each payment stands",
            ),
        ),
    }
}

/// The attempts count among the parked ones already.
fn requests(count: i64) -> Check {
    let name = "requests to mark refunds";
    match count {
        0 => Check::ok(name, "none"),
        count => Check::person(
            name,
            0,
            format!(
                "{} for a second person to confirm",
                counted(count, "attempt")
            ),
            see(
                Kind::MarkRequests,
                "another person confirms, or the request ends after a day",
            ),
        ),
    }
}

fn person_unless_none(kind: Kind, count: i64, noun: &str, then: &str) -> Check {
    let name = kind.title();
    match count {
        0 => Check::ok(name, "none"),
        count => Check::person(
            name,
            count.unsigned_abs(),
            counted(count, noun),
            see(kind, then),
        ),
    }
}

fn fail_unless_none(kind: Kind, count: i64, noun: &str, then: &str) -> Check {
    let name = kind.title();
    match count {
        0 => Check::ok(name, "none"),
        count => {
            let (counted, minutes) = (counted(count, noun), OVERDUE.whole_minutes());
            Check::fail(
                name,
                format!("{counted} due for more than {minutes} min"),
                see(kind, then),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Verdict::{Fail, Ok, Person, Warn};

    #[test]
    fn overdue_work_of_a_consumer_is_a_problem_and_work_for_a_person_is_not() {
        let none = Findings {
            parked_attempts: 0,
            failed_returns: 0,
            overdue_attempts: 0,
            unclaimed_returns: 0,
            dead_letters: 0,
            in_review: 0,
            mark_requests: 0,
            doubtful_attempts: 0,
        };
        let verdicts = |found: Findings| checks(&found).map(|check| check.verdict());
        assert_eq!(verdicts(none), [Ok; 8]);
        let person = Findings {
            parked_attempts: 1,
            failed_returns: 2,
            dead_letters: 3,
            in_review: 4,
            mark_requests: 1,
            ..none
        };
        assert_eq!(
            verdicts(person),
            [Person, Person, Person, Person, Ok, Ok, Ok, Person]
        );
        let unattended = Findings {
            overdue_attempts: 1,
            unclaimed_returns: 1,
            doubtful_attempts: 1,
            ..none
        };
        assert_eq!(verdicts(unattended), [Ok, Ok, Ok, Ok, Fail, Fail, Warn, Ok]);
    }
}
