//! `returnsctl topics`: makes both topics as they must be, and tells where existing ones differ.
//!
//! An existing topic is never changed: more partitions would move keys and break the order of a return's events,
//! and a shorter retention deletes. The differences are told with the command that a person may choose to run.

use std::process::ExitCode;

use serde::Serialize;
use shared::domain::event::TopicArgs;
use shared::runtime::kafka::KafkaArgs;

use crate::broker::{Broker, Creation, TopicPlan, TopicSettings, TopicState};
use crate::error::CtlError;
use crate::output;

/// Create the Kafka topics; existing ones are checked, never changed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    kafka: KafkaArgs,

    #[command(flatten)]
    topics: TopicArgs,

    /// Partitions of each topic. Fixed for life: the key's partition changes with it. Too few cap the number of
    /// consumers, too many cost the brokers memory.
    #[arg(long, env = "TOPIC_PARTITIONS", default_value_t = 12, value_parser = clap::value_parser!(i32).range(1..=1000))]
    partitions: i32,

    /// Copies of each partition. 3 in production; with 1, the loss of one broker loses events.
    #[arg(long, env = "TOPIC_REPLICATION", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=9))]
    replication: i32,

    /// Hours for which new-return events are kept. Longer than any outage of a reader.
    #[arg(long, env = "TOPIC_RETENTION_HOURS", default_value_t = 168, value_parser = clap::value_parser!(i64).range(1..=87_600))]
    retention_hours: i64,

    /// Hours for which status events are kept.
    #[arg(long, env = "TOPIC_STATUS_RETENTION_HOURS", default_value_t = 168, value_parser = clap::value_parser!(i64).range(1..=87_600))]
    status_retention_hours: i64,

    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// One topic after this run.
#[derive(Debug, Serialize)]
struct Line {
    outcome: Creation,
    #[serde(flatten)]
    state: TopicState,
    /// Where it is not as asked for; empty is good.
    differences: Vec<String>,
    /// What to know about it.
    notes: Vec<String>,
}

/// Kafka's own default. Events are below 200 bytes; a record above the limit is parked by the relay.
const MAX_MESSAGE_BYTES: i64 = 1_048_588;
const HOUR_MS: i64 = 3_600_000;

pub(crate) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    let problems = args.topics.problems();
    if !problems.is_empty() {
        return Err(CtlError::Usage(problems));
    }
    let broker = Broker::new(&args.kafka)?;
    let mut lines = Vec::new();
    for plan in args.plans() {
        lines.push(ensure(&broker, &plan).await?);
    }
    tell(&lines, args.json)?;
    let good = lines.iter().all(|line| line.differences.is_empty());
    Ok(ExitCode::from(if good { 0 } else { 1 }))
}

async fn ensure(broker: &Broker, plan: &TopicPlan) -> Result<Line, CtlError> {
    // Looked at first, so that a user without the right to create may check.
    let (outcome, state) = match broker.topic(&plan.name).await? {
        Some(state) => (Creation::Existed, state),
        None => (
            broker.create(plan).await?,
            broker.await_topic(&plan.name).await?,
        ),
    };
    Ok(Line {
        outcome,
        differences: differences(plan, &state),
        notes: note(&state).into_iter().collect(),
        state,
    })
}

impl Args {
    fn plans(&self) -> [TopicPlan; 2] {
        let plan = |name: &str, hours: i64| TopicPlan {
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
            plan(&self.topics.topic_returns, self.retention_hours),
            plan(&self.topics.topic_status, self.status_retention_hours),
        ]
    }
}

/// Where a topic is not as planned, each with what to do.
fn differences(plan: &TopicPlan, state: &TopicState) -> Vec<String> {
    let mut differences = Vec::new();
    if usize::try_from(plan.partitions) != Ok(state.partitions) {
        differences.push(format!(
            "has {} partitions, not {}: never add partitions while events are under way, it moves keys and breaks \
             their order; ask with --partitions {} if this is right",
            state.partitions, plan.partitions, state.partitions
        ));
    }
    if usize::try_from(plan.replication) != Ok(state.replication) {
        differences.push(format!(
            "has {} copies of each partition, not {}: see kafka-reassign-partitions.sh",
            state.replication, plan.replication
        ));
    }
    let settings = plan
        .settings
        .pairs()
        .into_iter()
        .zip(state.settings.pairs());
    for ((key, planned), (_, found)) in settings {
        if planned != found {
            differences.push(format!(
                "has {key}={found}, not {planned}: kafka-configs.sh --alter --entity-type topics \
                 --entity-name {} --add-config {key}={planned}",
                plan.name
            ));
        }
    }
    differences
}

/// What the loss of a broker means for this topic, if it is not what production needs.
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

fn tell(lines: &[Line], json: bool) -> Result<(), CtlError> {
    if json {
        return output::print_json(&lines);
    }
    let rows: Vec<[String; 6]> = lines.iter().map(row).collect();
    let head = [
        "topic",
        "",
        "partitions",
        "copies",
        "retention",
        "min.insync",
    ];
    output::print(&output::table(head, &rows))?;
    for line in lines {
        for text in &line.differences {
            output::print(&format!("DIFFERS {}: {text}", line.state.name))?;
        }
        for text in &line.notes {
            output::print(&format!("note    {}: {text}", line.state.name))?;
        }
    }
    Ok(())
}

fn row(line: &Line) -> [String; 6] {
    let state = &line.state;
    let outcome = match line.outcome {
        Creation::Created => "created",
        Creation::Existed => "exists",
    };
    [
        state.name.clone(),
        outcome.to_owned(),
        state.partitions.to_string(),
        state.replication.to_string(),
        retention_text(state.settings.retention_ms),
        state.settings.min_insync_replicas.to_string(),
    ]
}

/// Hours where they are whole, as people set them.
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

    fn plan() -> TopicPlan {
        TopicPlan {
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

    fn as_planned() -> TopicState {
        TopicState {
            name: "order.returns".to_owned(),
            partitions: 12,
            replication: 3,
            settings: plan().settings,
        }
    }

    #[test]
    fn a_topic_as_planned_has_no_differences() {
        assert!(differences(&plan(), &as_planned()).is_empty());
        assert_eq!(note(&as_planned()), None);
    }

    #[test]
    fn every_difference_is_told() {
        let mut state = as_planned();
        state.partitions = 3;
        state.replication = 1;
        state.settings.cleanup_policy = "compact".to_owned();
        state.settings.retention_ms = HOUR_MS;
        let told = differences(&plan(), &state);
        assert_eq!(told.len(), 4, "{told:?}");
        for part in [
            "3 partitions",
            "1 copies",
            "cleanup.policy=compact",
            "retention.ms=3600000",
        ] {
            assert!(
                told.iter().any(|text| text.contains(part)),
                "{part}: {told:?}"
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
            let mut state = as_planned();
            state.replication = copies;
            state.settings.min_insync_replicas = insync;
            assert_eq!(note(&state).is_some(), noted, "{copies} {insync}");
        }
    }
}
