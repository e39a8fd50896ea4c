//! `returnsctl topics`: creates both topics as they must be, and shows where existing ones differ.
//!
//! An existing topic is never changed: more partitions would move keys and break the order of a return's events, and a
//! shorter retention deletes events. Each difference comes with a command that a person may choose to run.

use std::process::ExitCode;

use serde::Serialize;
use shared::domain::event::TopicArgs;
use shared::runtime::kafka::KafkaArgs;

use crate::broker::{Broker, Creation, TopicSettings, TopicState, WantedTopic};
use crate::error::CtlError;
use crate::layout::{Row, table};
use crate::output;

/// Create the Kafka topics; existing ones are checked, never changed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    kafka: KafkaArgs,

    #[command(flatten)]
    topics: TopicArgs,

    /// Partitions of each topic. Never change this later: a key's partition depends on it. Too few limit the number of
    /// consumers, too many cost the brokers memory.
    #[arg(long, env = "TOPIC_PARTITIONS", default_value_t = 12, value_parser = clap::value_parser!(i32).range(1..=1000))]
    partitions: i32,

    /// Copies of each partition. 3 in production; with 1, the loss of one broker loses events.
    #[arg(long, env = "TOPIC_REPLICATION", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=9))]
    replication: i32,

    /// Hours for which events of new returns are kept. Must be longer than any outage of a reader.
    #[arg(long, env = "TOPIC_RETENTION_HOURS", default_value_t = 168, value_parser = clap::value_parser!(i64).range(1..=87_600))]
    retention_hours: i64,

    /// Hours for which status events are kept.
    #[arg(long, env = "TOPIC_STATUS_RETENTION_HOURS", default_value_t = 168, value_parser = clap::value_parser!(i64).range(1..=87_600))]
    status_retention_hours: i64,

    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Report(Vec<Line>);

/// One topic after this run.
#[derive(Debug, Serialize)]
struct Line {
    outcome: Creation,
    #[serde(flatten)]
    state: TopicState,
    /// Where the topic is not as wanted; empty is good.
    differences: Vec<String>,
    /// Remarks that need no action in development.
    notes: Vec<String>,
}

/// Kafka's own default. Events are below 200 bytes; a record above the limit is parked by the relay.
const MAX_MESSAGE_BYTES: i64 = 1_048_588;
const HOUR_MS: i64 = 3_600_000;

pub(crate) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let problems = args.topics.problems();
    if !problems.is_empty() {
        return Err(CtlError::Usage(problems));
    }
    let broker = Broker::new(&args.kafka)?;
    let mut lines = Vec::new();
    for wanted in args.wanted() {
        lines.push(ensure(&broker, &wanted).await?);
    }
    let report = Report(lines);
    output::report(&report, args.json)?;
    let good = report.0.iter().all(|line| line.differences.is_empty());
    Ok(ExitCode::from(if good { 0 } else { 1 }))
}

async fn ensure(broker: &Broker, wanted: &WantedTopic) -> Result<Line, CtlError> {
    // Read first, so that a user who may not create topics can still check them.
    let (outcome, state) = match broker.topic(&wanted.name).await? {
        Some(state) => (Creation::Existed, state),
        None => (
            broker.create(wanted).await?,
            broker.await_topic(&wanted.name).await?,
        ),
    };
    Ok(Line {
        outcome,
        differences: differences(wanted, &state),
        notes: note(&state).into_iter().collect(),
        state,
    })
}

impl Args {
    fn wanted(&self) -> [WantedTopic; 2] {
        let topic = |name: &str, hours: i64| WantedTopic {
            name: name.to_owned(),
            partitions: self.partitions,
            replication: self.replication,
            settings: TopicSettings {
                cleanup_policy: "delete".to_owned(),
                retention_ms: hours * HOUR_MS,
                max_message_bytes: MAX_MESSAGE_BYTES,
                min_insync_replicas: if self.replication >= 3 { 2 } else { 1 },
            },
        };
        [
            topic(&self.topics.topic_returns, self.retention_hours),
            topic(&self.topics.topic_status, self.status_retention_hours),
        ]
    }
}

/// Where a topic is not as wanted, each with what to do.
fn differences(wanted: &WantedTopic, state: &TopicState) -> Vec<String> {
    let mut differences = Vec::new();
    if usize::try_from(wanted.partitions) != Ok(state.partitions) {
        differences.push(format!(
            "has {} partitions, not {}: never add partitions while events are under way, it moves keys and breaks \
             their order; ask with --partitions {} if this is right",
            state.partitions, wanted.partitions, state.partitions
        ));
    }
    if usize::try_from(wanted.replication) != Ok(state.replication) {
        differences.push(format!(
            "has {} copies of each partition, not {}: see kafka-reassign-partitions.sh",
            state.replication, wanted.replication
        ));
    }
    let settings = wanted
        .settings
        .pairs()
        .into_iter()
        .zip(state.settings.pairs());
    for ((key, wanted_value), (_, found)) in settings {
        if wanted_value != found {
            differences.push(format!(
                "has {key}={found}, not {wanted_value}: kafka-configs.sh --alter --entity-type topics \
                 --entity-name {} --add-config {key}={wanted_value}",
                wanted.name
            ));
        }
    }
    differences
}

/// What the loss of a broker means for this topic, unless the topic is as production needs it.
pub(crate) fn note(state: &TopicState) -> Option<String> {
    let copies = state.replication;
    match (copies, state.settings.min_insync_replicas) {
        (1, _) => {
            Some("one copy: the loss of its broker loses events; fine for development".to_owned())
        }
        (3.., 2..) => None,
        (_, insync) => Some(format!(
            "{copies} copies with min.insync.replicas={insync}: an acknowledged event may be lost with one broker; \
             production wants 3 copies and 2"
        )),
    }
}

impl output::Report for Report {
    fn text(&self) -> String {
        let head = [
            "topic",
            "",
            "partitions",
            "copies",
            "retention",
            "min.insync",
        ];
        let rows: Vec<Row<6>> = self.0.iter().map(row).collect();
        table(head, &rows)
    }
}

fn row(line: &Line) -> Row<6> {
    let state = &line.state;
    let outcome = match line.outcome {
        Creation::Created => "created",
        Creation::Existed => "exists",
    };
    let differences = line.differences.iter();
    let differences = differences.map(|text| format!("DIFFERS: {text}"));
    let notes = line.notes.iter().map(|text| format!("note: {text}"));
    Row {
        cells: [
            state.name.clone(),
            outcome.to_owned(),
            state.partitions.to_string(),
            state.replication.to_string(),
            retention_text(state.settings.retention_ms),
            state.settings.min_insync_replicas.to_string(),
        ],
        below: differences.chain(notes).collect(),
    }
}

/// Whole hours where possible, as people set them.
pub(crate) fn retention_text(ms: i64) -> String {
    match ms {
        -1 => "for ever".to_owned(),
        ms if ms % HOUR_MS == 0 => format!("{} h", ms / HOUR_MS),
        ms => format!("{ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> WantedTopic {
        WantedTopic {
            name: "order.returns".to_owned(),
            partitions: 12,
            replication: 3,
            settings: TopicSettings {
                cleanup_policy: "delete".to_owned(),
                retention_ms: 168 * HOUR_MS,
                max_message_bytes: MAX_MESSAGE_BYTES,
                min_insync_replicas: 2,
            },
        }
    }

    fn as_wanted() -> TopicState {
        TopicState {
            name: "order.returns".to_owned(),
            partitions: 12,
            replication: 3,
            settings: wanted().settings,
        }
    }

    #[test]
    fn a_topic_as_wanted_has_no_differences() {
        assert!(differences(&wanted(), &as_wanted()).is_empty());
        assert_eq!(note(&as_wanted()), None);
    }

    #[test]
    fn every_difference_is_listed() {
        let mut state = as_wanted();
        state.partitions = 3;
        state.replication = 1;
        state.settings.cleanup_policy = "compact".to_owned();
        state.settings.retention_ms = HOUR_MS;
        let found = differences(&wanted(), &state);
        assert_eq!(found.len(), 4, "{found:?}");
        for part in [
            "3 partitions",
            "1 copies",
            "cleanup.policy=compact",
            "retention.ms=3600000",
        ] {
            assert!(
                found.iter().any(|text| text.contains(part)),
                "{part}: {found:?}"
            );
        }
    }

    #[test]
    fn one_copy_or_one_in_sync_is_worth_a_note() {
        for (copies, insync, noted) in [
            (1, 1, true),
            (2, 1, true),
            (3, 1, true),
            (3, 2, false),
            (5, 3, false),
        ] {
            let mut state = as_wanted();
            state.replication = copies;
            state.settings.min_insync_replicas = insync;
            assert_eq!(note(&state).is_some(), noted, "{copies} {insync}");
        }
    }

    #[test]
    fn wide_values_fit() {
        let mut state = as_wanted();
        state.name = "t".repeat(249);
        state.settings.retention_ms = i64::MAX;
        let line = |state: TopicState| Line {
            outcome: Creation::Created,
            differences: differences(&wanted(), &state),
            notes: vec!["one copy: ".repeat(20)],
            state,
        };
        output::expect_fits(&Report(vec![line(state), line(as_wanted())]));
    }
}
