//! Whether MySQL answers at all, asked before any work: a pool or a migration would wait for long and say less.

use std::time::Duration;

use shared::runtime::db::DbArgs;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{ConnectOptions, Connection};

use crate::error::CtlError;

/// A server that is stopped or behind a silent firewall would hold a connect for minutes.
const PATIENCE: Duration = Duration::from_secs(5);

/// The connection options of a server that just answered.
///
/// # Errors
/// The URL is bad, the database does not exist, or the server does not answer within five seconds.
pub(crate) async fn reach(args: &DbArgs) -> Result<MySqlConnectOptions, CtlError> {
    let options = args
        .options()
        .map_err(|problem| CtlError::Usage(vec![problem]))?;
    // Dropped half way, this connection is closed; no pool ever held it.
    let answer = tokio::time::timeout(PATIENCE, options.connect()).await;
    let conn: MySqlConnection = answer.map_err(|_| silent())??;
    conn.close().await?;
    Ok(options)
}

fn silent() -> CtlError {
    CtlError::Unreachable {
        server: "MySQL of DATABASE_URL",
        source: format!("no answer within {} s", PATIENCE.as_secs()).into(),
    }
}
