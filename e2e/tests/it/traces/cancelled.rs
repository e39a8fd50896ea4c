//! Work that was given up does not look as if it had succeeded.

use e2e::until;
use reqwest::Client;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::{DEADLINE, Traced};

#[tokio::test]
async fn a_request_whose_client_has_gone_is_cancelled() -> anyhow::Result<()> {
    let traced = Traced::create(1).await?;
    let api = traced.start("returns-api").await?;
    let (id, _) = traced.file(&api, 1).await?;
    // The request waits for this lock.
    let mut lock = traced.system.db.pool.begin().await?;
    sqlx::query("SELECT id FROM returns WHERE id = ? FOR UPDATE")
        .bind(id)
        .execute(&mut *lock)
        .await?;
    let url = format!("http://{}/returns/{id}/cancel", api.api_address()?);
    let cancel = Client::new()
        .post(url)
        .bearer_auth(traced.token("42", "customer").await?)
        .header("if-match", "\"1\"");
    let client = tokio::spawn(cancel.send());
    until("the request waits for the lock", DEADLINE, async || {
        let waiting = "SELECT COUNT(*) FROM performance_schema.processlist WHERE db = DATABASE() AND \
                       info LIKE '%transition::lock%' AND id <> CONNECTION_ID()";
        Ok(traced.system.count(waiting).await? > 0)
    })
    .await?;
    client.abort();
    let is_there = async || {
        let mut spans = traced.collector.spans();
        spans.retain(|span| span.name.starts_with("POST /returns/{id}"));
        Ok(spans.pop())
    };
    let server = until("the request's span has arrived", DEADLINE, is_there).await?;
    assert!(server.failed, "{server:?}");
    assert_eq!(server.attribute("error.type")?, "cancelled");
    let statements: Vec<_> = traced.collector.trace(&server.trace_id);
    let decide = statements
        .iter()
        .find(|span| span.name == "decide")
        .expect("the transaction");
    assert_eq!(decide.attribute("error.type")?, "cancelled");
    lock.rollback().await?;
    Ok(())
}

/// The provider takes the call and does not respond.
#[tokio::test]
async fn a_refund_that_the_drain_deadline_ends_is_cancelled() -> anyhow::Result<()> {
    let mut traced = Traced::create(1).await?;
    let provider = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", provider.local_addr()?);
    traced.set(&[("CONSUMER_DRAIN_SECS", "1"), ("GATEWAY_URL", &url)]);
    let api = traced.start("returns-api").await?;
    let (_, trace_id) = traced.file(&api, 1).await?;
    let _relay = traced.start("outbox-relay").await?;
    let consumer = traced.start("refund-consumer").await?;
    let (mut call, _) = tokio::time::timeout(DEADLINE, provider.accept()).await??;
    call.read_u8().await?;
    consumer.stop(DEADLINE).await?;
    for name in ["POST", "refund"] {
        let span = traced.span(&trace_id, name).await?;
        assert!(span.failed, "{span:?}");
        assert_eq!(span.attribute("error.type")?, "cancelled", "{name}");
    }
    Ok(())
}
