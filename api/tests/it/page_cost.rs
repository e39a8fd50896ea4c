//! The cost of a page: rows read and sorted, by the server's own counters. EXPLAIN would only show the plan.

use std::collections::HashMap;

use sqlx::AssertSqlSafe;

use crate::harness::{Api, until};
use crate::wire::DEADLINE;

/// Counters of one statement, by name.
pub(crate) type Reads = HashMap<String, u64>;

/// Rows and index entries that were read.
pub(crate) fn rows_read(reads: &Reads) -> u64 {
    let reads = reads
        .iter()
        .filter(|(name, _)| name.starts_with("Handler_read"));
    reads.map(|(_, count)| count).sum()
}

/// The reads and sorts of the api's only connection for a page. `statement` is the label of the page's SQL.
pub(crate) async fn reads_of_page(api: &Api, statement: &str, path: &str, token: &str) -> Reads {
    // The first request prepares the statement and makes the connection known.
    assert_eq!(api.get(path, token).await.status, 200, "{path}");
    let before = counters(api, statement).await;
    assert_eq!(api.get(path, token).await.status, 200, "{path}");
    let after = counters(api, statement).await;
    let spent = |(name, count): (String, u64)| {
        let spent = count - before[&name];
        (name, spent)
    };
    after.into_iter().map(spent).collect()
}

async fn counters(api: &Api, statement: &str) -> Reads {
    let sql = format!(
        "SELECT s.variable_name, s.variable_value FROM performance_schema.status_by_thread s \
         WHERE (s.variable_name LIKE 'Handler\\_read%' OR s.variable_name = 'Sort_rows') AND s.thread_id = ( \
         SELECT h.thread_id FROM performance_schema.events_statements_history h \
         JOIN performance_schema.threads t ON t.thread_id = h.thread_id \
         WHERE t.processlist_db = DATABASE() AND h.sql_text LIKE '/* {statement} */%' LIMIT 1)"
    );
    // The server records a statement shortly after its response.
    let rows = until("the connection is known", DEADLINE, || async {
        let query = sqlx::query_as(AssertSqlSafe(sql.clone()));
        let rows: Vec<(String, String)> = query.fetch_all(&api.db.pool).await.expect("counters");
        (!rows.is_empty()).then_some(rows)
    })
    .await;
    let number = |(name, count): (String, String)| (name, count.parse().expect("a number"));
    rows.into_iter().map(number).collect()
}
