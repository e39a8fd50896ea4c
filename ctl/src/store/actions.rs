//! `operator_actions`: what a person did, and why. Rows are only ever added, in the transaction of the deed.

use serde_json::{Value, json};
use shared::domain::actor::Actor;
use shared::domain::ids::{ReturnId, Shard};
use sqlx::AssertSqlSafe;
use sqlx::mysql::MySqlConnection;

use super::operate::Parked;

/// Who did it and why.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Because<'a> {
    pub(crate) by: &'a str,
    pub(crate) reason: &'a str,
}

/// What was done, as stored in `operator_actions.verb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Redrive,
    Discard,
    Pause,
    Resume,
    RetryRefund,
    RequestMarkPaid,
    ConfirmMarkPaid,
    MarkNotPaid,
    RedriveLetter,
    DiscardLetter,
    RevokeToken,
}

impl Verb {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Redrive => "outbox.redrive",
            Self::Discard => "outbox.discard",
            Self::Pause => "outbox.pause",
            Self::Resume => "outbox.resume",
            Self::RetryRefund => "refund.retry",
            Self::RequestMarkPaid => "refund.request_mark_paid",
            Self::ConfirmMarkPaid => "refund.confirm_mark_paid",
            Self::MarkNotPaid => "refund.mark_not_paid",
            Self::RedriveLetter => "dead_letter.redrive",
            Self::DiscardLetter => "dead_letter.discard",
            Self::RevokeToken => "token.revoke",
        }
    }
}

/// One action for each of the rows, with all that tells it apart once it is gone.
pub(crate) async fn record_rows(
    conn: &mut MySqlConnection,
    verb: Verb,
    because: Because<'_>,
    rows: Parked<'_>,
) -> sqlx::Result<u64> {
    let sql = format!(
        "/* record_rows */ INSERT INTO operator_actions (actor_type, actor_id, verb, event_id, return_id, reason, \
         created_at, shard, db_account, details) \
         SELECT 'operator', ?, ?, event_id, aggregate_id, ?, UTC_TIMESTAMP(6), shard, USER(), \
         JSON_OBJECT('id', id, 'order', msg_key, 'seq', seq, 'event_type', event_type, 'topic', topic, \
         'created_at', created_at, 'parked_at', parked_at, 'first_error', first_error, 'attempts', attempts, \
         'payload_bytes', LENGTH(payload), 'payload_sha256', SHA2(payload, 256)) \
         FROM outbox_parked FORCE INDEX ({}) WHERE {} ORDER BY id",
        rows.index(),
        rows.condition()
    );
    let query = sqlx::query(AssertSqlSafe(sql))
        .bind(because.by)
        .bind(verb.as_str())
        .bind(because.reason);
    Ok(rows.bind(query).execute(conn).await?.rows_affected())
}

/// Records what was done to a whole shard.
pub(crate) async fn record_shard(
    conn: &mut MySqlConnection,
    verb: Verb,
    because: Because<'_>,
    shard: Shard,
    owner: Option<&str>,
) -> sqlx::Result<()> {
    sqlx::query(
        "/* record_shard */ INSERT INTO operator_actions (actor_type, actor_id, verb, reason, created_at, shard, \
         db_account, details) VALUES ('operator', ?, ?, ?, UTC_TIMESTAMP(6), ?, USER(), ?)",
    )
    .bind(because.by)
    .bind(verb.as_str())
    .bind(because.reason)
    .bind(shard)
    .bind(json!({ "owner": owner }).to_string())
    .execute(conn)
    .await?;
    Ok(())
}

/// Records what was done to a token, which is named by its ids alone.
pub(crate) async fn record_token(
    conn: &mut MySqlConnection,
    verb: Verb,
    because: Because<'_>,
    details: &Value,
) -> sqlx::Result<()> {
    sqlx::query(
        "/* record_token */ INSERT INTO operator_actions (actor_type, actor_id, verb, reason, created_at, db_account, \
         details) VALUES ('operator', ?, ?, ?, UTC_TIMESTAMP(6), USER(), ?)",
    )
    .bind(because.by)
    .bind(verb.as_str())
    .bind(because.reason)
    .bind(details.to_string())
    .execute(conn)
    .await?;
    Ok(())
}

/// Records what a person did to a return, and why; answers the record's id.
pub(crate) async fn record_return(
    conn: &mut MySqlConnection,
    verb: Verb,
    who: &Actor,
    id: ReturnId,
    reason: &str,
    details: &Value,
) -> sqlx::Result<u64> {
    let recorded = sqlx::query(
        "/* record_return */ INSERT INTO operator_actions (actor_type, actor_id, verb, return_id, reason, created_at, \
         db_account, details) VALUES (?, ?, ?, ?, ?, UTC_TIMESTAMP(6), USER(), ?)",
    )
    .bind(who.kind.as_str())
    .bind(&who.id)
    .bind(verb.as_str())
    .bind(id)
    .bind(reason)
    .bind(details.to_string())
    .execute(conn)
    .await?;
    Ok(recorded.last_insert_id())
}

/// Records what was done to a letter, with all that tells it apart once it is gone. `redriven_to` is JSON.
pub(crate) async fn record_letter(
    conn: &mut MySqlConnection,
    verb: Verb,
    because: Because<'_>,
    id: i64,
    redriven_to: Option<&str>,
) -> sqlx::Result<u64> {
    let recorded = sqlx::query(
        "/* record_letter */ INSERT INTO operator_actions (actor_type, actor_id, verb, reason, created_at, db_account, \
         details) SELECT 'operator', ?, ?, ?, UTC_TIMESTAMP(6), USER(), \
         JSON_OBJECT('id', id, 'topic', topic, 'partition', partition_id, 'offset', offset_id, \
         'record_time', record_time, 'code', reason, 'received_at', received_at, 'key_sha256', SHA2(msg_key, 256), \
         'headers_sha256', SHA2(headers, 256), 'payload_bytes', LENGTH(payload), \
         'payload_sha256', SHA2(payload, 256), 'redriven_to', CAST(? AS JSON)) FROM dead_letters WHERE id = ?",
    )
    .bind(because.by)
    .bind(verb.as_str())
    .bind(because.reason)
    .bind(redriven_to)
    .bind(id)
    .execute(conn)
    .await?;
    Ok(recorded.rows_affected())
}

/// Records that a letter was sent whose row is gone, so that `details` come from memory.
pub(crate) async fn record_gone_letter(
    conn: &mut MySqlConnection,
    because: Because<'_>,
    details: &Value,
) -> sqlx::Result<()> {
    sqlx::query(
        "/* record_gone_letter */ INSERT INTO operator_actions (actor_type, actor_id, verb, reason, created_at, \
         db_account, details) VALUES ('operator', ?, ?, ?, UTC_TIMESTAMP(6), USER(), ?)",
    )
    .bind(because.by)
    .bind(Verb::RedriveLetter.as_str())
    .bind(because.reason)
    .bind(details.to_string())
    .execute(conn)
    .await?;
    Ok(())
}
