//! `returnsctl outbox topics`

use std::process::ExitCode;

use serde::Serialize;
use shared::domain::event::is_topic_name;

use crate::error::CtlError;
use crate::layout::{Row, table};
use crate::output;
use crate::session::SessionArgs;
use crate::store::outbox::{self as store, TopicStats};
use crate::text::{or_dash, printable, span};

const HELP: &str = "\
A topic that does not exist, or that the relay may not write to, holds back its own rows; all others flow. The relay's \
metric outbox_relay_troubled_topic and its /readyz?verbose name such topics with the reason.

To do: create the topic (`returnsctl topics`) or repair the rights in Kafka, and the relay goes on by itself. If the name \
is wrong: `returnsctl outbox park --topic NAME --by NAME --reason TEXT`, then `returnsctl outbox move --topic NAME --to RIGHT --by \
NAME --reason TEXT` and `returnsctl outbox redrive --all --by NAME --reason TEXT`, or give events up with \
`returnsctl outbox discard --event ID --by NAME --reason TEXT`.

The command reads every waiting row: some seconds for a million.";

/// Show each topic that rows are written for: how many wait, how long, and how many are parked.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    topics: Vec<Topic>,
}

#[derive(Debug, Serialize)]
struct Topic {
    #[serde(flatten)]
    stats: TopicStats,
    /// `false`: Kafka accepts no topic of this name.
    legal: bool,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let session = args.session.connect().await?;
    let stats = session.read("topic_stats", |conn| Box::pin(store::topic_stats(conn)));
    let topics = stats.await?.into_iter().map(|stats| Topic {
        legal: is_topic_name(&stats.topic),
        stats,
    });
    let report = Report {
        topics: topics.collect(),
    };
    output::report(&report, args.session.json)?;
    Ok(ExitCode::SUCCESS)
}

impl output::Report for Report {
    fn text(&self) -> String {
        if self.topics.is_empty() {
            return "No waiting or parked rows.".to_owned();
        }
        let rows: Vec<Row<4>> = self.topics.iter().map(Topic::row).collect();
        table(["waiting", "oldest", "parked", "name"], &rows)
    }
}

impl Topic {
    fn row(&self) -> Row<4> {
        let stats = &self.stats;
        Row {
            cells: [
                stats.waiting_rows.to_string(),
                or_dash(stats.oldest_age_secs.map(span)),
                stats.parked_rows.to_string(),
                if self.legal { "legal" } else { "illegal" }.to_owned(),
            ],
            below: vec![printable(&format!("topic {:?}", stats.topic))],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_values_fit() {
        let stats = TopicStats {
            topic: "t".repeat(249),
            waiting_rows: i64::MAX,
            oldest_age_secs: Some(7_000.0),
            parked_rows: i64::MAX,
        };
        let legal = is_topic_name(&stats.topic);
        output::expect_fits(&Report {
            topics: vec![Topic { stats, legal }],
        });
    }
}
