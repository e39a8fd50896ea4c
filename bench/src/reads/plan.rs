//! How MySQL reads a page: EXPLAIN of the statement that the api sent, taken from the server's general log.

use anyhow::Context;
use shared::test_support::TestDb;
use sqlx::{AssertSqlSafe, Row};

/// The index and the kind of access for each table of the statement labelled `label` that the api sends for `request`,
/// as `index (access; extra)`.
pub(crate) async fn of(
    db: &TestDb,
    label: &str,
    request: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<String> {
    let output: String = sqlx::query_scalar("SELECT @@GLOBAL.log_output")
        .fetch_one(&db.pool)
        .await?;
    for setting in ["log_output = 'TABLE'", "general_log = ON"] {
        set(db, setting).await?;
    }
    let asked = request.await;
    set(db, "general_log = OFF").await?;
    set(db, &format!("log_output = '{output}'")).await?;
    asked?;
    let statement: Vec<u8> = sqlx::query_scalar(
        "SELECT argument FROM mysql.general_log WHERE command_type = 'Execute' AND argument LIKE ? \
         ORDER BY event_time DESC LIMIT 1",
    )
    .bind(format!("/* {label} */%"))
    .fetch_one(&db.pool)
    .await
    .with_context(|| format!("{label} in the general log"))?;
    explain(db, String::from_utf8(statement)?).await
}

async fn set(db: &TestDb, setting: &str) -> anyhow::Result<()> {
    let sql = format!("SET GLOBAL {setting}");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&db.pool).await?;
    Ok(())
}

async fn explain(db: &TestDb, statement: String) -> anyhow::Result<String> {
    let sql = AssertSqlSafe(format!("EXPLAIN FORMAT=TRADITIONAL {statement}"));
    let rows = sqlx::raw_sql(sql).fetch_all(&db.pool).await?;
    let table = |row: &sqlx::mysql::MySqlRow| {
        let text = |column: &str| row.try_get::<Option<String>, _>(column);
        let of = |column: &str| anyhow::Ok(text(column)?.unwrap_or_else(|| "none".to_owned()));
        let extra = text("Extra")?.map_or_else(String::new, |extra| format!("; {extra}"));
        anyhow::Ok(format!("{} ({}{extra})", of("key")?, of("type")?))
    };
    let tables = rows.iter().map(table).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(tables.join(", "))
}
