//! What waits for a person or stands still, with the command for each, by what was read.

use serde::Serialize;
use shared::domain::event::{TopicArgs, is_topic_name};

use super::{Outbox, Overview, Work};
use crate::store::queues::{IN_REVIEW, StateCount};
use crate::store::shards::{ShardHead, shard_numbers};
use crate::text::{counted, printable};
use crate::waiting::{Kind, Urgency};

/// The names are those of `--json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Waiting {
    pub(crate) kind: Kind,
    pub(crate) urgency: Urgency,
    pub(crate) count: i64,
    /// The names or numbers of what was counted; empty if the count is enough.
    pub(crate) found: String,
    /// For how long the oldest has waited, where that is known.
    pub(crate) oldest_secs: Option<f64>,
    /// What to type next.
    pub(crate) command: String,
}

impl Waiting {
    fn new(kind: Kind, count: i64) -> Self {
        Self {
            kind,
            urgency: kind.urgency(),
            count,
            found: String::new(),
            oldest_secs: None,
            command: kind.command().to_owned(),
        }
    }

    fn found(self, found: impl Into<String>) -> Self {
        Self {
            found: found.into(),
            ..self
        }
    }

    fn oldest(self, oldest_secs: Option<f64>) -> Self {
        Self {
            oldest_secs,
            ..self
        }
    }

    fn command(self, command: impl Into<String>) -> Self {
        Self {
            command: command.into(),
            ..self
        }
    }
}

/// Everything that waits. The kinds that stand still come first.
pub(super) fn of(overview: &Overview, topics: &TopicArgs) -> Vec<Waiting> {
    let mut all: Vec<Waiting> = Vec::new();
    if let Some(outbox) = &overview.outbox.value {
        all.extend(of_outbox(outbox));
    }
    all.push(troubled_topics(overview, topics));
    all.extend(unread(overview));
    if let Some(work) = &overview.work.value {
        all.extend(of_work(work));
    }
    all.retain(|one| one.count > 0);
    all.sort_by_key(|one| one.kind);
    all
}

fn of_outbox(outbox: &Outbox) -> [Waiting; 4] {
    let those = |wanted: fn(&ShardHead) -> bool| {
        let shards = outbox.shards.iter();
        shards
            .filter(|head| wanted(head))
            .collect::<Vec<&ShardHead>>()
    };
    let (unattended, late) = (those(ShardHead::is_unattended), those(ShardHead::is_old));
    let paused = those(ShardHead::is_paused);
    let oldest = |heads: &[&ShardHead]| {
        let ages = heads.iter().filter_map(|head| head.oldest_age_secs);
        ages.reduce(f64::max)
    };
    let about = |kind, heads: &[&ShardHead]| {
        Waiting::new(kind, count(heads.len())).found(shard_numbers(heads))
    };
    [
        about(Kind::UnattendedShards, &unattended).oldest(oldest(&unattended)),
        about(Kind::LateEvents, &late)
            .oldest(oldest(&late))
            .command(peek(&late)),
        about(Kind::PausedShards, &paused)
            .oldest(
                paused
                    .iter()
                    .filter_map(|head| head.paused_secs)
                    .reduce(f64::max),
            )
            .command(resume(&paused)),
        Waiting::new(Kind::ParkedEvents, outbox.parked_events)
            .found(format!("of {}", counted(outbox.parked_orders, "order"))),
    ]
}

/// The command for the shard that has the oldest row of all.
fn peek(late: &[&ShardHead]) -> String {
    let age = |head: &&ShardHead| head.oldest_age_secs.unwrap_or(0.0);
    let oldest = late
        .iter()
        .copied()
        .max_by(|a, b| age(a).total_cmp(&age(b)));
    oldest.map_or_else(String::new, |head| {
        let peek = Kind::LateEvents.command();
        format!("{peek} --shard {}", head.shard)
    })
}

fn resume(paused: &[&ShardHead]) -> String {
    let command = Kind::PausedShards.command();
    let first = paused.first().map(|head| head.shard.to_string());
    command.replace(
        "--shard N",
        &format!("--shard {}", first.unwrap_or_default()),
    )
}

/// The topics that a relay names, and our own topics and those of late rows that Kafka does not have.
fn troubled_topics(overview: &Overview, topics: &TopicArgs) -> Waiting {
    let scrapes = overview.programs.iter();
    let scrapes = scrapes.filter_map(|program| program.metrics.value.as_ref());
    let mut troubled: Vec<(&str, &str)> = scrapes
        .flat_map(|scrape| &scrape.troubled_topics)
        .map(|one| (one.topic.as_str(), one.reason.as_str()))
        .collect();
    let outbox = overview.outbox.value.as_ref();
    let late = outbox.into_iter().flat_map(|outbox| &outbox.shards);
    let late = late.filter(|head| head.is_old());
    let late = late.filter_map(|head| head.oldest_topic.as_deref());
    let ours = [topics.topic_returns.as_str(), topics.topic_status.as_str()];
    let exists = |topic: &str| match &overview.consumers.value {
        Some(consumers) => consumers.topics.iter().any(|name| name == topic),
        None => true,
    };
    for topic in late.chain(ours) {
        if !is_topic_name(topic) {
            troubled.push((topic, "topic_illegal"));
        } else if !exists(topic) {
            troubled.push((topic, "topic_missing"));
        }
    }
    troubled.sort_unstable();
    troubled.dedup_by_key(|(topic, _)| *topic);
    let named: Vec<String> = troubled
        .iter()
        .map(|(topic, reason)| format!("{} ({reason})", printable(topic)))
        .collect();
    let waiting = Waiting::new(Kind::TroubledTopics, count(troubled.len())).found(named.join(", "));
    let to_create =
        |(topic, reason): &(&str, &str)| *reason == "topic_missing" && ours.contains(topic);
    if troubled.iter().any(to_create) {
        waiting.command("returnsctl topics")
    } else {
        waiting
    }
}

fn unread(overview: &Overview) -> Option<Waiting> {
    let group = overview.consumers.value.as_ref()?.group.as_ref()?;
    let nobody = group.members.is_empty();
    let name = printable(&group.group);
    nobody.then(|| {
        Waiting::new(Kind::UnreadRecords, group.lag).found(format!("group {name} has no member"))
    })
}

fn of_work(work: &Work) -> [Waiting; 8] {
    let oldest = |states: &[StateCount], name: &str| {
        let found = states.iter().find(|state| state.name == name);
        found.and_then(|state| state.oldest_secs)
    };
    let found = &work.findings;
    [
        Waiting::new(Kind::UnclaimedReturns, found.unclaimed_returns),
        Waiting::new(Kind::OverdueRefunds, found.overdue_attempts),
        Waiting::new(Kind::ParkedRefunds, found.parked_attempts),
        Waiting::new(Kind::MarkRequests, found.mark_requests),
        Waiting::new(Kind::FailedRefunds, found.failed_returns)
            .oldest(oldest(&work.returns, "refund_failed")),
        Waiting::new(Kind::Reviews, found.in_review).oldest(oldest(&work.returns, IN_REVIEW)),
        Waiting::new(Kind::DeadLetters, found.dead_letters).oldest(work.oldest_dead_letter_secs),
        Waiting::new(Kind::DoubtfulRefunds, found.doubtful_attempts),
    ]
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
