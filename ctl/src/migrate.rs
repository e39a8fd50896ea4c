//! `returnsctl migrate`: brings the schema to what this build needs.

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use shared::runtime::db::DbArgs;
use shared::runtime::schema::{self, Repair};

use crate::error::CtlError;
use crate::text::counted;
use crate::{output, session};

/// Bring the database's schema up to date; safe to repeat, also from two machines at once.
///
/// The database itself must exist. A migration that fails changes nothing: repair the cause and run again.
#[derive(Debug, clap::Args)]
#[command(mut_arg("database_max_connections", |arg| arg.hide(true)))]
pub(crate) struct Args {
    #[command(flatten)]
    db: DbArgs,

    /// Seconds to wait for another run that holds the lock.
    #[arg(long, env = "MIGRATE_LOCK_WAIT_SECS", default_value_t = schema::LOCK_WAIT.as_secs(),
        value_parser = clap::value_parser!(u64).range(0..=3600))]
    lock_wait_secs: u64,

    /// After an interrupted run: the statement of this migration took effect. Records that and continues.
    #[arg(long, value_name = "VERSION")]
    took_effect: Option<i64>,

    /// After an interrupted run: the statement of this migration had no effect. Runs it again.
    #[arg(long, value_name = "VERSION")]
    had_no_effect: Option<i64>,

    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    database: &'a str,
    version: i64,
    applied: usize,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let finding = args.finding()?;
    let options = session::reach(&args.db).await?;
    let database = options
        .get_database()
        .expect("DbArgs::options refuses a URL without a database");
    let lock_wait = Duration::from_secs(args.lock_wait_secs);
    if let Some((version, finding)) = finding {
        schema::repair(&options, version, finding, lock_wait).await?;
    }
    let applied = schema::migrate_within(&options, lock_wait).await?;
    let report = Report {
        database,
        version: schema::version(),
        applied,
    };
    output::report(&report, args.json)?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// What a person found out about an interrupted migration.
    fn finding(&self) -> Result<Option<(i64, Repair)>, CtlError> {
        match (self.took_effect, self.had_no_effect) {
            (None, None) => Ok(None),
            (Some(version), None) => Ok(Some((version, Repair::TookEffect))),
            (None, Some(version)) => Ok(Some((version, Repair::HadNoEffect))),
            (Some(_), Some(_)) => Err(CtlError::Usage(vec![
                "--took-effect and --had-no-effect contradict each other".to_owned(),
            ])),
        }
    }
}

impl output::Report for Report<'_> {
    fn text(&self) -> String {
        let Report {
            database,
            version,
            applied,
        } = self;
        match applied {
            0 => format!("{database} is at schema version {version}; nothing to apply"),
            _ => format!(
                "{database} is at schema version {version}; {} applied",
                counted(*applied, "migration")
            ),
        }
    }
}
