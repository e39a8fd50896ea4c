//! `revoked_tokens`.

use serde_json::json;
use shared::auth::RevocationKind;
use sqlx::mysql::MySqlConnection;
use time::OffsetDateTime;

use super::actions::{Because, Verb, record_token};

/// A token that is to be refused from now on.
#[derive(Debug, Clone)]
pub(crate) struct Revocation {
    pub(crate) kind: RevocationKind,
    pub(crate) name: String,
    /// When it may be forgotten; `None` for never.
    pub(crate) expires_at: Option<OffsetDateTime>,
}

/// Puts it on the list, or keeps it there for longer, and records who did; `false` if it was there for as long. Forgets
/// some of those that ended a day ago.
pub(crate) async fn revoke(
    conn: &mut MySqlConnection,
    revocation: &Revocation,
    because: Because<'_>,
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
    .bind(because.by)
    .bind(because.reason)
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
    record_token(conn, Verb::RevokeToken, because, &details).await?;
    forget_ended(conn).await?;
    Ok(true)
}

/// Of two that name the same, the longer one holds; answers whether it is the new one.
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

/// They are refused without the list.
async fn forget_ended(conn: &mut MySqlConnection) -> sqlx::Result<()> {
    sqlx::query(
        "/* forget_ended */ DELETE /*+ INDEX(revoked_tokens expires_at) */ FROM revoked_tokens \
         WHERE expires_at < UTC_TIMESTAMP(6) - INTERVAL 1 DAY LIMIT 500",
    )
    .execute(conn)
    .await?;
    Ok(())
}
