//! `returnsctl dead-letters redrive`
//!
//! Must stay true: a row is deleted only after every in-sync replica has acknowledged its record. A crash, a lost answer
//! or two redrives at once therefore send a record twice, never lose it; whoever reads it deduplicates by event id.

use std::process::ExitCode;

use clap::ArgGroup;
use serde::Serialize;
use serde_json::json;
use shared::runtime::db;
use shared::runtime::kafka::KafkaArgs;
use sqlx::mysql::MySqlConnection;

use super::letter::{details_of, remove};
use super::postman::{Postman, Unsent};
use crate::error::CtlError;
use crate::operator::OperatorArgs;
use crate::output;
use crate::session::{SessionArgs, retried};
use crate::store::actions::{Because, Verb, record_gone_letter};
use crate::store::dead_letters::{Letter, WHOLE, letter_ids, read_letter};
use crate::text::counted;

const EXAMPLE: &str = "\
Remove the cause first: a record that still cannot be used becomes a dead letter again, under a new id.

WHAT THIS MEANS FOR READERS: every reader of the topic gets the record once more, byte for byte, in its old partition
but after everything that came since, with the header x-redriven-from: topic/partition/offset added. Readers that
compare event ids or `seq` ignore it if they had it.

A row is deleted only after Kafka has acknowledged its record; a run that is cut off in between may send one record
twice. One that cannot be sent is kept, the report says why, and the rest is sent: headers that could not be read
(unreadable_header) were not kept whole; a topic may be gone, take too little, or not take from this user.

Example:
  returnsctl dead-letters redrive 7 8 --by j.doe --reason 'INC-9: consumer 0.3.2 reads them'";

/// Send dead letters to their topics again, byte for byte.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
#[command(group(ArgGroup::new("scope").required(true)))]
pub(super) struct Args {
    /// Dead letters, as `returnsctl dead-letters list` shows them; sent in this order.
    #[arg(value_name = "ID", group = "scope", value_parser = clap::value_parser!(i64).range(1..))]
    ids: Vec<i64>,

    /// Every dead letter there is when the command begins, the oldest first, but those that cannot be sent.
    #[arg(long, group = "scope")]
    all: bool,

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
    redriven: Vec<Redriven>,
    skipped: Vec<Skipped>,
    /// Whether everything that was asked for is done.
    complete: bool,
}

#[derive(Debug, Serialize)]
struct Redriven {
    id: i64,
    topic: String,
    partition: i32,
    /// Where the record stands now.
    offset: i64,
    row: Row,
    /// Whether it is known that a row of operator_actions tells of it.
    recorded: bool,
}

/// What became of the dead letter's row once its record was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Row {
    Deleted,
    /// Somebody else had sent or removed it meanwhile: the record may stand in the topic twice.
    WasGone,
    /// MySQL failed: it may be there still, and would be sent again.
    Unknown,
}

#[derive(Debug, Serialize)]
struct Skipped {
    id: i64,
    why: String,
}

pub(super) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    let mut conn = args.session.connect().await?;
    // Nothing is locked while Kafka is waited for.
    db::restore_idle_timeout(&mut conn).await?;
    let ids = if args.all {
        letter_ids(&mut conn).await?
    } else {
        args.ids.clone()
    };
    let mut report = Report {
        action: "redrive",
        ..Report::default()
    };
    let outcome = send_all(&mut conn, args, &ids, &mut report).await;
    let deleted = report.redriven.iter().all(|one| one.row == Row::Deleted);
    report.complete = outcome.is_ok() && report.skipped.is_empty() && deleted;
    // Also after a failure: some may have been sent.
    report.tell(args.session.json)?;
    outcome?;
    Ok(ExitCode::from(if report.complete { 0 } else { 1 }))
}

async fn send_all(
    conn: &mut MySqlConnection,
    args: &Args,
    ids: &[i64],
    report: &mut Report,
) -> Result<(), CtlError> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut postman = Postman::new(&args.kafka)?;
    let because = args.operator.because();
    for &id in ids {
        let Some(letter) = read_letter(conn, id, WHOLE).await? else {
            // Of all that there were, somebody else has dealt with this one.
            if !args.all {
                let why = "there is no such dead letter: `dead-letters list` shows those there are"
                    .to_owned();
                report.skipped.push(Skipped { id, why });
            }
            continue;
        };
        match send(&mut postman, &letter).await {
            Ok((partition, offset)) => {
                // In the report before anything else can fail: the record stands in the topic.
                report.redriven.push(Redriven {
                    id,
                    topic: letter.row.topic.clone(),
                    partition,
                    offset,
                    row: Row::Unknown,
                    recorded: false,
                });
                let row = settle(conn, &letter, (partition, offset), because).await?;
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

async fn send(postman: &mut Postman, letter: &Letter) -> Result<(i32, i64), Unsent> {
    postman.check(letter).await?;
    postman.send(letter).await
}

/// Removes the row of a record that was acknowledged. Whether or not it is still there, the deed is recorded.
async fn settle(
    conn: &mut MySqlConnection,
    letter: &Letter,
    (partition, offset): (i32, i64),
    because: Because<'_>,
) -> Result<Row, CtlError> {
    let id = letter.row.id;
    let to = json!({ "partition": partition, "offset": offset });
    let removed = retried(conn, async |conn| {
        remove(conn, id, Verb::RedriveLetter, because, Some(&to)).await
    })
    .await?;
    if removed {
        return Ok(Row::Deleted);
    }
    record_gone_letter(conn, because, &details_of(letter, &to)).await?;
    Ok(Row::WasGone)
}

impl Report {
    fn tell(&self, json: bool) -> Result<(), CtlError> {
        if json {
            return output::print_json(self);
        }
        let count = i64::try_from(self.redriven.len()).unwrap_or(i64::MAX);
        let mut lines: Vec<String> = self.redriven.iter().map(Redriven::line).collect();
        let skipped = self.skipped.iter();
        lines.extend(skipped.map(|one| format!("kept {}: {}", one.id, one.why)));
        lines.push(match count {
            0 => "nothing was sent".to_owned(),
            count => format!("sent {} again", counted(count, "dead letter")),
        });
        output::print(&lines.join("\n"))
    }
}

impl Redriven {
    fn line(&self) -> String {
        let but = match self.row {
            Row::Deleted => "",
            Row::WasGone => {
                " (somebody else had sent or removed it meanwhile: it may stand there twice)"
            }
            Row::Unknown => {
                " (but MySQL failed: its row may be there still, and this may not be recorded)"
            }
        };
        format!(
            "{} -> {}[{}]@{}{but}",
            self.id, self.topic, self.partition, self.offset
        )
    }
}
