//! `operator_actions`: what a person did, and why. Rows are only ever added, by this one statement, in the transaction of
//! the change.

use serde_json::Value;
use shared::domain::ids::{ReturnId, Shard};
use sqlx::AssertSqlSafe;
use sqlx::mysql::MySqlConnection;

use super::parked::ParkedRows;

/// Who did it, and why.
#[derive(Debug, Clone)]
pub(crate) struct Author {
    pub(crate) actor_type: &'static str,
    pub(crate) actor_id: String,
    pub(crate) reason: String,
}

/// What was done, as stored in `operator_actions.verb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
pub(crate) enum Verb {
    #[strum(serialize = "outbox.redrive")]
    RedriveRows,
    #[strum(serialize = "outbox.discard")]
    DiscardRow,
    #[strum(serialize = "outbox.park")]
    ParkRows,
    #[strum(serialize = "outbox.move")]
    MoveRows,
    #[strum(serialize = "outbox.pause")]
    Pause,
    #[strum(serialize = "outbox.resume")]
    Resume,
    #[strum(serialize = "refund.retry")]
    RetryRefund,
    #[strum(serialize = "refund.park")]
    ParkRefund,
    #[strum(serialize = "refund.request_mark_paid")]
    RequestMarkPaid,
    #[strum(serialize = "refund.confirm_mark_paid")]
    ConfirmMarkPaid,
    #[strum(serialize = "refund.request_mark_not_paid")]
    RequestMarkNotPaid,
    #[strum(serialize = "refund.confirm_mark_not_paid")]
    ConfirmMarkNotPaid,
    #[strum(serialize = "dead_letter.redrive")]
    RedriveDeadLetter,
    #[strum(serialize = "dead_letter.discard")]
    DiscardDeadLetter,
    #[strum(serialize = "token.revoke")]
    RevokeToken,
}

impl Verb {
    pub(crate) fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The subject of the action, with everything that identifies it once it is deleted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Subject<'a> {
    /// One action for each of the rows.
    Parked(ParkedRows<'a>),
    /// The same, with the topic that the rows get.
    Moved(ParkedRows<'a>, &'a str),
    /// A row of `dead_letters`. `redriven_to` is JSON.
    DeadLetter {
        id: i64,
        redriven_to: Option<&'a str>,
    },
    Shard(Shard, &'a Value),
    Return(ReturnId, &'a Value),
    /// Something that has no column of its own.
    Other(&'a Value),
}

/// The rows that were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// Of the first one.
    pub(crate) id: u64,
    pub(crate) rows: u64,
}

pub(crate) async fn record(
    conn: &mut MySqlConnection,
    verb: Verb,
    author: &Author,
    subject: Subject<'_>,
) -> sqlx::Result<Recorded> {
    let sql = format!(
        "/* record_action */ INSERT INTO operator_actions (actor_type, actor_id, verb, reason, created_at, db_account, \
         event_id, return_id, shard, details) SELECT ?, ?, ?, ?, UTC_TIMESTAMP(6), USER(), {}",
        subject.columns()
    );
    let query = sqlx::query(AssertSqlSafe(sql))
        .bind(author.actor_type)
        .bind(&author.actor_id)
        .bind(verb.as_str())
        .bind(&author.reason);
    let query = match subject {
        Subject::Parked(rows) => rows.bind(query),
        Subject::Moved(rows, to) => rows.bind(query.bind(to.to_owned())),
        Subject::DeadLetter { id, redriven_to } => query.bind(redriven_to).bind(id),
        Subject::Shard(shard, details) => query.bind(shard).bind(details.to_string()),
        Subject::Return(id, details) => query.bind(id).bind(details.to_string()),
        Subject::Other(details) => query.bind(details.to_string()),
    };
    let added = query.execute(conn).await?;
    Ok(Recorded {
        id: added.last_insert_id(),
        rows: added.rows_affected(),
    })
}

impl Subject<'_> {
    /// The last four columns, and where they come from.
    fn columns(&self) -> String {
        match self {
            Self::Parked(rows) => parked_columns(*rows, ""),
            Self::Moved(rows, _) => parked_columns(*rows, ", 'moved_to', ?"),
            Self::DeadLetter { .. } => "NULL, NULL, NULL, \
                 JSON_OBJECT('id', id, 'topic', topic, 'partition', partition_id, 'offset', offset_id, \
                 'record_time', record_time, 'code', reason, 'received_at', received_at, 'key_sha256', SHA2(msg_key, 256), \
                 'headers_sha256', SHA2(headers, 256), 'payload_bytes', LENGTH(payload), \
                 'payload_sha256', SHA2(payload, 256), 'redriven_to', CAST(? AS JSON)) FROM dead_letters WHERE id = ?"
                .to_owned(),
            Self::Shard(..) => "NULL, NULL, ?, ?".to_owned(),
            Self::Return(..) => "NULL, ?, NULL, ?".to_owned(),
            Self::Other(_) => "NULL, NULL, NULL, ?".to_owned(),
        }
    }
}

/// `more` are further pairs of the details.
fn parked_columns(rows: ParkedRows<'_>, more: &str) -> String {
    format!(
        "event_id, aggregate_id, shard, \
         JSON_OBJECT('id', id, 'order', msg_key, 'seq', seq, 'event_type', event_type, 'topic', topic, \
         'created_at', created_at, 'parked_at', parked_at, 'first_error', first_error, 'attempts', attempts, \
         'payload_bytes', LENGTH(payload), 'payload_sha256', SHA2(payload, 256){more}) \
         FROM outbox_parked FORCE INDEX ({}) WHERE {} ORDER BY id",
        rows.index(),
        rows.condition()
    )
}
