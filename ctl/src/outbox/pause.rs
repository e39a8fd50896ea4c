//! `returnsctl outbox pause` and `resume`

use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;
use shared::domain::ids::Shard;
use sqlx::mysql::MySqlConnection;

use super::shard::parse_shard;
use crate::error::CtlError;
use crate::operator::OperatorArgs;
use crate::output;
use crate::session::SessionArgs;
use crate::store::actions::{Author, Subject, Verb, record};
use crate::store::leases as store;

const PAUSE_HELP: &str = "\
The relay that owns the shard sees the pause at its next renewal (a fifth of LEASE_MS). It waits for the records in \
flight, deletes their rows and gives the shard up; no relay takes it until `resume`. `returnsctl outbox stats` shows when \
that is done: `paused`, without an owner. A relay that is frozen meanwhile may repeat old records when it continues: \
docs/adr/0007.

Meanwhile the rows of the shard wait in the outbox and count towards its limits; the alert on their age will fire.";

/// Hold a shard back: its relay finishes the records in flight and gives the shard up, and no relay takes it.
#[derive(Debug, clap::Args)]
#[command(after_help = PAUSE_HELP)]
pub(super) struct PauseArgs {
    #[command(flatten)]
    shard: ShardArgs,
}

/// End a pause: a relay takes the shard at its next renewal.
#[derive(Debug, clap::Args)]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    shard: ShardArgs,
}

// No doc comment: see `SessionArgs`.
#[derive(Debug, clap::Args)]
struct ShardArgs {
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
    /// `false` if the shard was in this state already; then nothing is recorded.
    changed: bool,
    /// The relay that has still to give the shard up, if it runs.
    owner: Option<String>,
}

pub(super) async fn pause(args: PauseArgs) -> Result<ExitCode, CtlError> {
    run(Verb::Pause, args.shard).await
}

pub(super) async fn resume(args: ResumeArgs) -> Result<ExitCode, CtlError> {
    run(Verb::Resume, args.shard).await
}

async fn run(verb: Verb, args: ShardArgs) -> Result<ExitCode, CtlError> {
    let session = args.session.connect().await?;
    let (shard, author) = (args.shard, args.operator.author());
    let report = session.transaction("pause_or_resume", move |conn| {
        let author = author.clone();
        Box::pin(async move { Ok(change(conn, verb, shard, &author).await?) })
    });
    output::report(&report.await?, args.session.json)?;
    Ok(ExitCode::SUCCESS)
}

async fn change(
    conn: &mut MySqlConnection,
    verb: Verb,
    shard: Shard,
    author: &Author,
) -> sqlx::Result<Report> {
    store::lock_lease(conn, shard).await?;
    let (action, changed) = if verb == Verb::Pause {
        ("pause", store::pause(conn, shard).await?)
    } else {
        ("resume", store::resume(conn, shard).await?)
    };
    let owner = store::owner(conn, shard).await?;
    if changed {
        let details = json!({ "owner": owner });
        record(conn, verb, author, Subject::Shard(shard, &details)).await?;
    }
    Ok(Report {
        action,
        shard,
        changed,
        owner,
    })
}

impl output::Report for Report {
    fn text(&self) -> String {
        let shard = self.shard;
        match (self.action, self.changed, &self.owner) {
            ("pause", true, Some(owner)) => {
                format!("Shard {shard} is paused; {owner} gives it up at its next renewal.")
            }
            ("pause", true, None) => format!("Shard {shard} is paused; it had no owner."),
            ("pause", false, _) => {
                format!("Shard {shard} was paused already; nothing was changed.")
            }
            (_, true, _) => {
                format!("Shard {shard} is resumed; a relay takes it at its next renewal.")
            }
            (_, false, _) => format!("Shard {shard} was not paused; nothing was changed."),
        }
    }
}
