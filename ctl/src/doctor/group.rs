//! Whether refund consumers read the topic of new returns.

use shared::runtime::kafka::KafkaArgs;

use super::report::{Check, Report};
use crate::consumer_group::{self, GroupState};
use crate::text::counted;

/// A consumer takes thousands of records a second.
const LAG_NOTABLE: i64 = 10_000;

pub(super) async fn examine(kafka: &KafkaArgs, group: &str, topic: &str, report: &mut Report) {
    let name = format!("consumer group {group}");
    match consumer_group::read(kafka, group, topic).await {
        Ok(Some(state)) => report.add(check(name, &state)),
        // The topic's own check reports that there is none.
        Ok(None) => {}
        Err(error) => report.add(Check::of_error(name, &error)),
    }
}

fn check(name: String, state: &GroupState) -> Check {
    let members = i64::try_from(state.members).unwrap_or(i64::MAX);
    let found = format!(
        "{}, {} not read",
        counted(members, "member"),
        counted(state.lag, "record")
    );
    let advice = "start a refund-consumer, or see its log; CONSUMER_GROUP must be the consumer's";
    match (state.members, state.lag) {
        (0, 0) => Check::warn(name, found, advice),
        (0, _) => Check::fail(name, found, advice),
        (_, lag) if lag > LAG_NOTABLE => Check::warn(
            name,
            found,
            "run the command again: if the number does not fall, add consumers or see their log",
        ),
        _ => Check::ok(name, found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Verdict::{Fail, Ok, Warn};

    #[test]
    fn records_that_nobody_reads_are_a_problem() {
        for (members, lag, verdict) in [
            (2, 0, Ok),
            (2, 10_000, Ok),
            (2, 10_001, Warn),
            (0, 0, Warn),
            (0, 1, Fail),
        ] {
            let state = GroupState { members, lag };
            assert_eq!(
                check("g".to_owned(), &state).verdict(),
                verdict,
                "{state:?}"
            );
        }
    }
}
