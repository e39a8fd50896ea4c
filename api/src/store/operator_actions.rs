//! Reading what operators did, for auditors. Nothing here writes: `returnsctl` does, in the transaction of each change.
//!
//! Every read forces the index of its narrowest filter, as for the audit trail.

use shared::domain::ids::{EventId, ReturnId};
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{QueryBuilder, Row};
use strum::{EnumString, IntoStaticStr};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::events::Position;

/// How the person of an action is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr, ToSchema)]
#[schema(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub(crate) enum OperatorType {
    /// By a verified token.
    Admin,
    /// By the name that the person typed.
    Operator,
}

impl OperatorType {
    fn as_str(self) -> &'static str {
        self.into()
    }
}

/// An action as it was recorded.
#[derive(Debug, Clone)]
pub(crate) struct OperatorActionRow {
    pub(crate) position: Position,
    pub(crate) actor_type: String,
    pub(crate) actor_id: String,
    pub(crate) verb: String,
    pub(crate) reason: String,
    pub(crate) return_id: Option<ReturnId>,
    pub(crate) event_id: Option<EventId>,
    pub(crate) shard: Option<u8>,
    pub(crate) db_account: Option<String>,
    /// JSON.
    pub(crate) details: Option<String>,
}

/// Which actions to read. Every field narrows the filter.
#[derive(Debug, Clone, Default)]
pub(crate) struct OperatorActionFilter {
    pub(crate) return_id: Option<ReturnId>,
    pub(crate) actor_type: Option<OperatorType>,
    pub(crate) actor_id: Option<String>,
    pub(crate) verb: Option<String>,
    pub(crate) created_from: Option<OffsetDateTime>,
    pub(crate) created_before: Option<OffsetDateTime>,
    /// The last row of the previous page.
    pub(crate) after: Option<Position>,
}

impl OperatorActionFilter {
    /// The few actions about one return are sorted; the other indexes have the list's order.
    fn index(&self) -> &'static str {
        if self.return_id.is_some() {
            "return_id"
        } else if self.actor_id.is_some() {
            "actor_created"
        } else if self.verb.is_some() {
            "verb_created"
        } else {
            "created"
        }
    }
}

/// At most `limit` actions, newest first. Keyset pagination, never OFFSET: every page costs the same.
pub(crate) async fn list_operator_actions(
    conn: &mut MySqlConnection,
    filter: &OperatorActionFilter,
    limit: u32,
) -> sqlx::Result<Vec<OperatorActionRow>> {
    let mut query = QueryBuilder::new(format!(
        "/* list_operator_actions */ SELECT /*+ MAX_EXECUTION_TIME(20000) */ id, actor_type, actor_id, verb, reason, \
         created_at, return_id, event_id, shard, db_account, CAST(details AS CHAR) AS details FROM operator_actions \
         FORCE INDEX ({}) WHERE TRUE",
        filter.index()
    ));
    if let Some(return_id) = filter.return_id {
        query.push(" AND return_id = ").push_bind(return_id);
    }
    if let Some(kind) = filter.actor_type {
        query.push(" AND actor_type = ").push_bind(kind.as_str());
    }
    for (column, text) in [("actor_id", &filter.actor_id), ("verb", &filter.verb)] {
        if let Some(text) = text {
            query
                .push(format!(" AND {column} = "))
                .push_bind(text.clone());
        }
    }
    if let Some(from) = filter.created_from {
        query.push(" AND created_at >= ").push_bind(from);
    }
    if let Some(before) = filter.created_before {
        query.push(" AND created_at < ").push_bind(before);
    }
    if let Some(Position { created_at, id }) = filter.after {
        // The first condition lets the index range start here; a row constructor alone would not.
        query
            .push(" AND created_at <= ")
            .push_bind(created_at)
            .push(" AND (created_at < ")
            .push_bind(created_at)
            .push(" OR id < ")
            .push_bind(id)
            .push(")");
    }
    query
        .push(" ORDER BY created_at DESC, id DESC LIMIT ")
        .push_bind(limit);
    let rows = query.build().fetch_all(conn).await?;
    rows.iter().map(action_row).collect()
}

fn action_row(row: &MySqlRow) -> sqlx::Result<OperatorActionRow> {
    Ok(OperatorActionRow {
        position: Position {
            created_at: row.try_get("created_at")?,
            id: row.try_get("id")?,
        },
        actor_type: row.try_get("actor_type")?,
        actor_id: row.try_get("actor_id")?,
        verb: row.try_get("verb")?,
        reason: row.try_get("reason")?,
        return_id: row.try_get("return_id")?,
        event_id: row.try_get("event_id")?,
        shard: row.try_get("shard")?,
        db_account: row.try_get("db_account")?,
        details: row.try_get("details")?,
    })
}
