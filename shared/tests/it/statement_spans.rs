//! What the span of a statement says whose caller gives up.

use std::time::Duration;

use shared::runtime::db::{Database, DbError};
use shared::runtime::trace::{self, SpanKind};
use shared::test_support::spans::record;
use shared::test_support::{TestDb, until};
use sqlx::mysql::MySqlConnectOptions;
use tokio::sync::oneshot;

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_statement_whose_caller_gives_up_is_cancelled() {
    let recorded = record();
    let test_db = TestDb::create().await;
    let options: MySqlConnectOptions = test_db.url().parse().expect("a good URL");
    let database = Database::unmetered(options, 1);
    let root = trace::span(SpanKind::Internal, "caller").start();
    let (begun, has_begun) = oneshot::channel();
    let work = async move {
        let waits = database.run("wait_for_caller", DEADLINE, move |_| {
            Box::pin(async move {
                begun.send(()).expect("the test waits");
                std::future::pending::<Result<(), DbError>>().await
            })
        });
        waits.await
    };
    let task = tokio::spawn(root.scope(work));
    has_begun.await.expect("the statement begins");
    task.abort();
    task.await.expect_err("it was aborted");
    let trace_id = root.context().trace_id().to_owned();
    let span = until("the statement's span has arrived", DEADLINE, || async {
        let spans = recorded.spans();
        spans
            .into_iter()
            .find(|span| span.trace_id == trace_id && span.name == "wait_for_caller")
    })
    .await;
    assert!(span.failed, "{span:?}");
    assert_eq!(span.attributes["error.type"], "cancelled");
}
