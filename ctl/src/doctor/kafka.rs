//! Kafka: connection, and both topics.

use shared::domain::event::TopicArgs;
use shared::runtime::kafka::KafkaArgs;

use super::report::{Check, Report};
use crate::broker::{Broker, TopicState};
use crate::error::CtlError;
use crate::topics::{note, retention_text};

/// Above the outage of a reader over a weekend: it must not miss events.
const RETENTION_AT_LEAST_MS: i64 = 72 * HOUR_MS;
const HOUR_MS: i64 = 3_600_000;

pub(super) async fn examine(
    kafka: &KafkaArgs,
    topics: &TopicArgs,
    inbox_days: u16,
    report: &mut Report,
) {
    if let Err(error) = examine_inside(kafka, topics, inbox_days, report).await {
        report.add(Check::of_error("kafka connection", &error));
    }
}

async fn examine_inside(
    kafka: &KafkaArgs,
    topics: &TopicArgs,
    inbox_days: u16,
    report: &mut Report,
) -> Result<(), CtlError> {
    let broker = Broker::new(kafka)?;
    let brokers = broker.count().await?;
    report.add(Check::ok(
        "kafka connection",
        format!("connected, brokers: {brokers}"),
    ));
    for name in [&topics.topic_returns, &topics.topic_status] {
        match broker.topic(name).await? {
            Some(state) => {
                for check in check_topic(&state) {
                    report.add(check);
                }
                // Our consumer reads the topic of new returns only.
                if name == &topics.topic_returns {
                    report.add(check_inbox(&state, inbox_days));
                }
            }
            None => report.add(Check::fail(
                format!("topic {name}"),
                "does not exist",
                "run `returnsctl topics`",
            )),
        }
    }
    Ok(())
}

fn check_topic(state: &TopicState) -> [Check; 3] {
    [
        check_cleanup(state),
        check_retention(state),
        check_copies(state),
    ]
}

fn check_cleanup(state: &TopicState) -> Check {
    let name = format!("topic {}", state.name);
    let policy = &state.settings.cleanup_policy;
    let found = format!("partitions: {}, cleanup.policy={policy}", state.partitions);
    if policy == "delete" {
        Check::ok(name, found)
    } else {
        let advice =
            "set cleanup.policy=delete: compaction deletes all but the last event of an order";
        Check::fail(name, found, advice)
    }
}

fn check_retention(state: &TopicState) -> Check {
    let name = format!("topic {} retention", state.name);
    let ms = state.settings.retention_ms;
    if ms == -1 || ms >= RETENTION_AT_LEAST_MS {
        Check::ok(name, retention_text(ms))
    } else {
        let advice =
            "set retention.ms above the longest outage of a reader, at least 72 h (259200000)";
        Check::warn(name, retention_text(ms), advice)
    }
}

fn check_copies(state: &TopicState) -> Check {
    let name = format!("topic {} copies", state.name);
    let insync = state.settings.min_insync_replicas;
    let found = format!(
        "copies: {}, min.insync.replicas={insync}",
        state.replication
    );
    if usize::try_from(insync).is_ok_and(|insync| insync > state.replication) {
        let advice = "lower min.insync.replicas: with acks=all nothing can be written";
        return Check::fail(name, found, advice);
    }
    match note(state) {
        Some(note) => Check::warn(name, found, note),
        None => Check::ok(name, found),
    }
}

/// An event id must be remembered for as long as its message can be read again.
fn check_inbox(state: &TopicState, inbox_days: u16) -> Check {
    let name = format!("topic {} against inbox", state.name);
    let kept_ms = state.settings.retention_ms;
    // The table does not show the consumer's setting.
    let found = format!(
        "inbox {inbox_days} d by INBOX_RETENTION_DAYS of this environment, topic {}",
        retention_text(kept_ms)
    );
    if kept_ms != -1 && i64::from(inbox_days) * 24 * HOUR_MS > kept_ms {
        Check::ok(name, found)
    } else {
        let advice =
            "remember event ids longer than the topic keeps events, or a replay is taken for new";
        Check::fail(name, found, advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::TopicSettings;
    use crate::doctor::report::Verdict;

    fn good() -> TopicState {
        TopicState {
            name: "order.returns".to_owned(),
            partitions: 12,
            replication: 3,
            settings: TopicSettings {
                cleanup_policy: "delete".to_owned(),
                retention_ms: 168 * HOUR_MS,
                max_message_bytes: 1_048_588,
                min_insync_replicas: 2,
            },
        }
    }

    fn verdicts(spoil: fn(&mut TopicState)) -> [Verdict; 3] {
        let mut state = good();
        spoil(&mut state);
        check_topic(&state).map(|check| check.verdict())
    }

    #[test]
    fn each_setting_of_a_topic_is_checked() {
        use Verdict::{Fail, Ok, Warn};
        assert_eq!(verdicts(|_| {}), [Ok, Ok, Ok]);
        assert_eq!(
            verdicts(|s| s.settings.cleanup_policy = "compact".to_owned()),
            [Fail, Ok, Ok]
        );
        assert_eq!(
            verdicts(|s| s.settings.retention_ms = HOUR_MS),
            [Ok, Warn, Ok]
        );
        assert_eq!(verdicts(|s| s.settings.retention_ms = -1), [Ok, Ok, Ok]);
        assert_eq!(
            verdicts(|s| s.settings.min_insync_replicas = 1),
            [Ok, Ok, Warn]
        );
        assert_eq!(
            verdicts(|s| s.settings.min_insync_replicas = 4),
            [Ok, Ok, Fail]
        );
    }

    #[test]
    fn ids_must_be_remembered_longer_than_events_are_kept() {
        for (days, verdict) in [(8, Verdict::Ok), (7, Verdict::Fail), (1, Verdict::Fail)] {
            assert_eq!(check_inbox(&good(), days).verdict(), verdict, "{days}");
        }
        let mut for_ever = good();
        for_ever.settings.retention_ms = -1;
        assert_eq!(check_inbox(&for_ever, u16::MAX).verdict(), Verdict::Fail);
    }
}
