//! `revoked_tokens`.

use serde_json::json;
use shared::auth::RevocationKind;
use sqlx::mysql::MySqlConnection;
use time::OffsetDateTime;

use super::actions::{Author, Subject, Verb, record};

/// A token that the api is to refuse from now on.
#[derive(Debug, Clone)]
pub(crate) struct Revocation {
    pub(crate) kind: RevocationKind,
    pub(crate) name: String,
    /// When the entry may be deleted; `None` for never.
    pub(crate) expires_at: Option<OffsetDateTime>,
}

/// Puts a token on the list, or keeps it there for longer, and records who did. `false` if the list already had it for as
/// long. Deletes some of the entries that ended a day ago.
pub(crate) async fn revoke(
    conn: &mut MySqlConnection,
    revocation: &Revocation,
    author: &Author,
) -> sqlx::Result<bool> {
    let Revocation {
        kind,
        name,
        expires_at,
    } = revocation;
    let added = sqlx::query(
        "/* revoke */ INSERT INTO revoked_tokens (kind, token, revoked_at, expires_at, revoked_by, reason) \
         VALUES (?, ?, UTC_TIMESTAMP(6), ?, ?, ?)",
    )
    .bind(kind.as_str())
    .bind(name)
    .bind(expires_at)
    .bind(&author.actor_id)
    .bind(&author.reason)
    .execute(&mut *conn)
    .await;
    match added {
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
            if !extend(conn, revocation).await? {
                return Ok(false);
            }
        }
        added => {
            added?;
        }
    }
    let details = json!({ "kind": kind.as_str(), "token": name });
    record(conn, Verb::RevokeToken, author, Subject::Other(&details)).await?;
    delete_ended(conn).await?;
    Ok(true)
}

/// Of two revocations of the same name, the longer one holds. `true` if that is the new one.
async fn extend(conn: &mut MySqlConnection, revocation: &Revocation) -> sqlx::Result<bool> {
    let extended = sqlx::query(
        "/* extend */ UPDATE revoked_tokens FORCE INDEX (PRIMARY) SET expires_at = ? \
         WHERE kind = ? AND token = ? AND expires_at IS NOT NULL AND (? IS NULL OR expires_at < ?)",
    )
    .bind(revocation.expires_at)
    .bind(revocation.kind.as_str())
    .bind(&revocation.name)
    .bind(revocation.expires_at)
    .bind(revocation.expires_at)
    .execute(conn)
    .await?;
    Ok(extended.rows_affected() == 1)
}

/// Tokens that have ended are refused without the list.
async fn delete_ended(conn: &mut MySqlConnection) -> sqlx::Result<()> {
    sqlx::query(
        "/* delete_ended */ DELETE /*+ INDEX(revoked_tokens expires_at) */ FROM revoked_tokens \
         WHERE expires_at < UTC_TIMESTAMP(6) - INTERVAL 1 DAY LIMIT 500",
    )
    .execute(conn)
    .await?;
    Ok(())
}
