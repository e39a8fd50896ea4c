//! `returnsctl outbox pause` and `resume`

use std::process::ExitCode;

use serde::Serialize;
use shared::domain::ids::Shard;
use sqlx::Connection;
use sqlx::mysql::MySqlConnection;

use super::parse_shard;
use crate::error::CtlError;
use crate::operator::OperatorArgs;
use crate::output;
use crate::session::{SessionArgs, retried};
use crate::store::actions::{Because, Verb, record_shard};
use crate::store::operate as store;

const PAUSE_HELP: &str = "\
The relay that owns the shard sees it at its next renewal (a fifth of LEASE_MS), flushes what is in flight, deletes it,
and gives the shard up; no relay takes it until `resume`. `returnsctl outbox stats` shows when that is done: `paused`
and no owner. A relay that is frozen meanwhile may repeat old records when it wakes: docs/adr/0007.

Meanwhile the shard's rows wait in the outbox and count towards its limits; the alarm on their age will sound.";

/// Hold a shard back: its relay flushes and gives it up, and none takes it.
#[derive(Debug, clap::Args)]
#[command(after_help = PAUSE_HELP)]
pub(super) struct PauseArgs {
    /// The shard.
    #[arg(long, value_name = "N", value_parser = parse_shard)]
    shard: Shard,

    #[command(flatten)]
    operator: OperatorArgs,

    #[command(flatten)]
    session: SessionArgs,
}

/// End a pause: a relay takes the shard at its next renewal.
#[derive(Debug, clap::Args)]
pub(super) struct ResumeArgs {
    /// The shard.
    #[arg(long, value_name = "N", value_parser = parse_shard)]
    shard: Shard,

    #[command(flatten)]
    operator: OperatorArgs,

    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    action: &'static str,
    shard: Shard,
    /// False if it was so already; then nothing is recorded.
    changed: bool,
    /// The relay that has still to give the shard up, if it lives.
    owner: Option<String>,
}

pub(super) async fn pause(args: &PauseArgs) -> Result<ExitCode, CtlError> {
    act(Verb::Pause, args.shard, &args.operator, &args.session).await
}

pub(super) async fn resume(args: &ResumeArgs) -> Result<ExitCode, CtlError> {
    act(Verb::Resume, args.shard, &args.operator, &args.session).await
}

async fn act(
    verb: Verb,
    shard: Shard,
    operator: &OperatorArgs,
    session: &SessionArgs,
) -> Result<ExitCode, CtlError> {
    let mut conn = session.connect().await?;
    let because = operator.because();
    let report = retried(&mut conn, async |conn| {
        change(conn, verb, shard, because).await
    })
    .await?;
    report.tell(session.json)?;
    Ok(ExitCode::SUCCESS)
}

async fn change(
    conn: &mut MySqlConnection,
    verb: Verb,
    shard: Shard,
    because: Because<'_>,
) -> sqlx::Result<Report> {
    let mut tx = conn.begin().await?;
    let (action, changed) = if verb == Verb::Pause {
        ("pause", store::pause(&mut tx, shard).await?)
    } else {
        ("resume", store::resume(&mut tx, shard).await?)
    };
    let owner = store::owner(&mut tx, shard).await?;
    if changed > 0 {
        record_shard(&mut tx, verb, because, shard, owner.as_deref()).await?;
    }
    tx.commit().await?;
    Ok(Report {
        action,
        shard,
        changed: changed > 0,
        owner,
    })
}

impl Report {
    fn tell(&self, json: bool) -> Result<(), CtlError> {
        if json {
            return output::print_json(self);
        }
        output::print(&self.text())
    }

    fn text(&self) -> String {
        let shard = self.shard;
        match (self.action, self.changed, &self.owner) {
            ("pause", true, Some(owner)) => {
                format!("shard {shard} paused; {owner} gives it up at its next renewal")
            }
            ("pause", true, None) => format!("shard {shard} paused; nobody had it"),
            ("pause", false, _) => format!("shard {shard} was paused already; nothing was changed"),
            (_, true, _) => {
                format!("shard {shard} resumed; a relay takes it at its next renewal")
            }
            (_, false, _) => format!("shard {shard} was not paused; nothing was changed"),
        }
    }
}
