//! All SQL of this crate.

use std::time::Duration;

pub(crate) mod actions;
pub(crate) mod amounts;
pub(crate) mod dead_letters;
pub(crate) mod findings;
pub(crate) mod leases;
pub(crate) mod orders;
pub(crate) mod outbox;
pub(crate) mod parked;
pub(crate) mod queues;
pub(crate) mod refunds;
pub(crate) mod returns;
pub(crate) mod server;
pub(crate) mod shards;
pub(crate) mod tokens;
pub(crate) mod trace;
pub(crate) mod trails;

#[cfg(test)]
mod explain;

/// The hint with which the server itself ends a `SELECT`: a scan goes on when the client that asked for it has given up. It stands
/// after the first `SELECT` of a statement, and holds for the whole.
fn ends_within(limit: Duration) -> String {
    format!("/*+ MAX_EXECUTION_TIME({}) */", limit.as_millis())
}

#[cfg(test)]
mod tests {
    use shared::test_support::TestDb;
    use sqlx::Executor;
    use sqlx::mysql::MySqlConnection;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(100);

    fn is_ended<T>(read: sqlx::Result<T>) -> bool {
        let error = read.err();
        let error = error.as_ref().and_then(sqlx::Error::as_database_error);
        let code =
            error.and_then(|error| error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>());
        code.is_some_and(|error| error.number() == 3024)
    }

    /// A lock of the tables stands for rows without end.
    #[tokio::test]
    async fn the_server_ends_each_count_at_its_limit() {
        let db = TestDb::create().await;
        let mut other = db.pool.acquire().await.expect("a connection");
        let lock = "LOCK TABLES outbox WRITE, outbox_parked WRITE, returns WRITE, refunds WRITE, dead_letters WRITE";
        other.execute(lock).await.expect("locked");
        let mut conn = db.pool.acquire().await.expect("a connection");
        let conn: &mut MySqlConnection = &mut conn;
        assert!(
            is_ended(shards::shard_counts(conn, LIMIT).await),
            "shard_counts"
        );
        assert!(
            is_ended(outbox::parked_totals(conn, LIMIT).await),
            "parked_totals"
        );
        assert!(
            is_ended(queues::open_returns(conn, LIMIT).await),
            "open_returns"
        );
        assert!(
            is_ended(queues::open_attempts(conn, LIMIT).await),
            "open_attempts"
        );
        assert!(
            is_ended(findings::findings(conn, 300, LIMIT).await),
            "findings"
        );
    }
}
