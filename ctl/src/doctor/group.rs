//! Whether refund consumers read the topic of new returns.

use std::time::Duration;

use shared::runtime::kafka::KafkaArgs;

use super::report::{Check, Report};
use crate::consumer_group::{GroupReader, GroupState};
use crate::error::CtlError;

/// A consumer takes thousands of records a second.
const LAG_NOTABLE: i64 = 10_000;

const DEADLINE: Duration = Duration::from_secs(10);

pub(super) async fn examine(kafka: &KafkaArgs, group: &str, topic: &str, report: &mut Report) {
    let name = format!("consumer group {group}");
    match read(kafka, group, topic).await {
        Ok(Some(state)) => report.add(check(name, &state)),
        // The topic's own check reports that there is none.
        Ok(None) => {}
        Err(error) => report.add(Check::of_error(name, &error)),
    }
}

async fn read(kafka: &KafkaArgs, group: &str, topic: &str) -> Result<Option<GroupState>, CtlError> {
    let reader = GroupReader::new(kafka, group)?;
    Ok(reader.read(topic, DEADLINE).await?.group)
}

fn check(name: String, state: &GroupState) -> Check {
    let members = i64::try_from(state.members.len()).unwrap_or(i64::MAX);
    let found = state.summary();
    let advice = "start a refund-consumer, or see its log; CONSUMER_GROUP must be the consumer's";
    match (members, state.lag) {
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
    use crate::consumer_group::Member;
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
            let member = Member {
                client_id: "c".to_owned(),
                host: "h".to_owned(),
                partitions: Vec::new(),
            };
            let state = GroupState {
                group: "g".to_owned(),
                topic: "t".to_owned(),
                lag,
                members: vec![member; members],
                partitions: Vec::new(),
            };
            assert_eq!(
                check("g".to_owned(), &state).verdict(),
                verdict,
                "{state:?}"
            );
        }
    }
}
