//! `returnsctl dead-letters redrive`
//!
//! Must stay true: a row is deleted only after every in-sync replica has acknowledged its record. After a crash, a lost
//! response or two redrives at once, a record may be in the topic twice, but is never lost; readers deduplicate by event
//! id.

use std::process::ExitCode;
use std::sync::Arc;

use clap::ArgGroup;
use serde::Serialize;
use serde_json::json;
use shared::runtime::kafka::KafkaArgs;

use super::record::{details_of, remove};
use super::sender::{Sender, Unsent};
use crate::error::CtlError;
use crate::operator::OperatorArgs;
use crate::output;
use crate::session::{Session, SessionArgs};
use crate::store::actions::{Author, Subject, Verb, record};
use crate::store::dead_letters::{DeadLetter, WHOLE, dead_letter_ids, read_dead_letter};
use crate::text::counted;

const HELP: &str = "\
Remove the cause first: a record that still cannot be used becomes a dead letter again, under a new id.

WHAT THIS MEANS FOR READERS: every reader of the topic gets the record once more, byte for byte, in its old partition but \
after all later records, with the additional header x-redriven-from: topic/partition/offset. Readers that compare event \
ids or `seq` ignore a record that they had already.

A row is deleted only after Kafka has acknowledged its record; a run that is interrupted in between may send one record \
twice. A record that cannot be sent is kept, the report has the reason, and the others are sent: headers that could not \
be read (unreadable_header) were not kept whole; a topic may be gone, have a lower limit, or refuse this user.

Example:
  returnsctl dead-letters redrive 7 8 --by j.doe \\
    --reason 'INC-9: consumer 0.3.2 reads them'";

/// Send dead letters to their topics again, byte for byte.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
#[command(group(ArgGroup::new("scope").required(true)))]
pub(super) struct Args {
    /// Dead letters, as `returnsctl dead-letters list` shows them; sent in this order.
    #[arg(value_name = "ID", group = "scope", value_parser = clap::value_parser!(i64).range(1..))]
    ids: Vec<i64>,

    /// Every dead letter that exists when the command begins, the oldest first, except those that cannot be sent.
    #[arg(long, group = "scope")]
    all: bool,

    /// Only say which records would be sent and which not, and why; send and change nothing.
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    operator: OperatorArgs,

    #[command(flatten)]
    kafka: KafkaArgs,

    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    action: &'static str,
    dry_run: bool,
    redriven: Vec<Redriven>,
    /// With --dry-run: those that can be sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    would_redrive: Vec<Sendable>,
    skipped: Vec<Skipped>,
    /// `true` if every dead letter in the scope was sent and removed.
    complete: bool,
}

#[derive(Debug, Serialize)]
struct Sendable {
    id: i64,
    topic: String,
    partition: i32,
}

#[derive(Debug, Serialize)]
struct Redriven {
    id: i64,
    topic: String,
    partition: i32,
    /// The record's new offset.
    offset: i64,
    row: RowOutcome,
    /// Whether operator_actions is known to have a row about it.
    recorded: bool,
}

/// What happened to the dead letter's row after its record was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum RowOutcome {
    Deleted,
    /// Another operator sent or removed it meanwhile: the record may be in the topic twice.
    WasGone,
    /// MySQL failed: the row may still exist, and would be sent again.
    Unknown,
}

#[derive(Debug, Serialize)]
struct Skipped {
    id: i64,
    why: String,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let session = args.session.connect().await?;
    let ids = if args.all {
        let all = session.read("dead_letter_ids", |conn| Box::pin(dead_letter_ids(conn)));
        all.await?
    } else {
        args.ids.clone()
    };
    let mut report = Report {
        action: "redrive",
        dry_run: args.dry_run,
        ..Report::default()
    };
    let outcome = send_all(&session, &args, &ids, &mut report).await;
    let deleted = |one: &Redriven| one.row == RowOutcome::Deleted;
    let as_asked =
        outcome.is_ok() && report.skipped.is_empty() && report.redriven.iter().all(deleted);
    report.complete = as_asked && !args.dry_run;
    output::progress("")?;
    // Also after a failure: some may have been sent.
    output::report(&report, args.session.json)?;
    outcome?;
    Ok(ExitCode::from(if as_asked { 0 } else { 1 }))
}

async fn send_all(
    session: &Session,
    args: &Args,
    ids: &[i64],
    report: &mut Report,
) -> Result<(), CtlError> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut sender = Sender::new(&args.kafka)?;
    let author = Arc::new(args.operator.author());
    for (done, &id) in ids.iter().enumerate() {
        output::progress(&format!("{done} of {}", counted(ids.len(), "dead letter")))?;
        let found = session.read("read_dead_letter", move |conn| {
            Box::pin(read_dead_letter(conn, id, WHOLE))
        });
        let Some(letter) = found.await? else {
            // With --all, another operator has sent or removed it since.
            if !args.all {
                let why = "there is no such dead letter: `dead-letters list` shows those there are"
                    .to_owned();
                report.skipped.push(Skipped { id, why });
            }
            continue;
        };
        if args.dry_run {
            match sender.check(&letter).await {
                Ok(()) => report.would_redrive.push(Sendable::of(&letter)),
                Err(Unsent::Kept(why)) => report.skipped.push(Skipped { id, why }),
                Err(Unsent::Failed(error)) => return Err(error),
            }
            continue;
        }
        match send(&mut sender, &letter).await {
            Ok((partition, offset)) => {
                // In the report before anything else can fail: the record is in the topic.
                report.redriven.push(Redriven {
                    id,
                    topic: letter.summary.topic.clone(),
                    partition,
                    offset,
                    row: RowOutcome::Unknown,
                    recorded: false,
                });
                let row = settle(session, letter, (partition, offset), &author).await?;
                if let Some(last) = report.redriven.last_mut() {
                    (last.row, last.recorded) = (row, true);
                }
            }
            Err(Unsent::Kept(why)) => report.skipped.push(Skipped { id, why }),
            Err(Unsent::Failed(error)) => return Err(error),
        }
    }
    Ok(())
}

async fn send(sender: &mut Sender, letter: &DeadLetter) -> Result<(i32, i64), Unsent> {
    sender.check(letter).await?;
    sender.send(letter).await
}

/// Removes the row of a record that was acknowledged. The action is recorded, also if the row is gone.
async fn settle(
    session: &Session,
    letter: DeadLetter,
    (partition, offset): (i32, i64),
    author: &Arc<Author>,
) -> Result<RowOutcome, CtlError> {
    let to = json!({ "partition": partition, "offset": offset });
    let if_gone = details_of(&letter, &to);
    let shared = Arc::new((letter.summary.id, to, if_gone, Arc::clone(author)));
    let outcome = session.transaction("redrive_dead_letter", move |conn| {
        let shared = Arc::clone(&shared);
        Box::pin(async move {
            let (id, to, if_gone, author) = shared.as_ref();
            let verb = Verb::RedriveDeadLetter;
            if remove(conn, *id, verb, author, Some(to)).await? {
                return Ok(RowOutcome::Deleted);
            }
            record(conn, verb, author, Subject::Other(if_gone)).await?;
            Ok(RowOutcome::WasGone)
        })
    });
    outcome.await
}

impl output::Report for Report {
    fn text(&self) -> String {
        let sendable = self.would_redrive.iter();
        let would =
            |one: &Sendable| format!("would send {} to {}[{}]", one.id, one.topic, one.partition);
        let mut lines: Vec<String> = sendable.map(would).collect();
        lines.extend(self.redriven.iter().map(Redriven::line));
        let skipped = self.skipped.iter();
        lines.extend(skipped.map(|one| format!("kept {}: {}", one.id, one.why)));
        lines.push(match self.redriven.len() {
            _ if self.dry_run => "Nothing was sent or changed.".to_owned(),
            0 => "No dead letters were sent.".to_owned(),
            count => format!("Sent {} again.", counted(count, "dead letter")),
        });
        lines.join("\n")
    }
}

impl Sendable {
    fn of(letter: &DeadLetter) -> Self {
        Self {
            id: letter.summary.id,
            topic: letter.summary.topic.clone(),
            partition: letter.summary.partition_id,
        }
    }
}

impl Redriven {
    fn line(&self) -> String {
        let note = match self.row {
            RowOutcome::Deleted => "",
            RowOutcome::WasGone => {
                " (another operator sent or removed it meanwhile: it may be in the topic twice)"
            }
            RowOutcome::Unknown => {
                " (MySQL failed: its row may still exist, and this may not be recorded)"
            }
        };
        format!(
            "{} -> {}[{}]@{}{note}",
            self.id, self.topic, self.partition, self.offset
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_values_fit() {
        let redriven = |row| Redriven {
            id: i64::MAX,
            topic: "t".repeat(249),
            partition: i32::MAX,
            offset: i64::MAX,
            row,
            recorded: true,
        };
        let skipped = Skipped {
            id: i64::MAX,
            why: "its headers could not be read, so they were not kept whole".to_owned(),
        };
        let outcomes = [
            RowOutcome::Deleted,
            RowOutcome::WasGone,
            RowOutcome::Unknown,
        ];
        output::expect_fits(&Report {
            action: "redrive",
            dry_run: false,
            redriven: outcomes.map(redriven).into(),
            would_redrive: vec![Sendable {
                id: i64::MAX,
                topic: "t".repeat(249),
                partition: i32::MAX,
            }],
            skipped: vec![skipped],
            complete: false,
        });
    }
}
