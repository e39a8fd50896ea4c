//! The steps of the story, each shown with the time since the request was sent.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::kafka_log::{self, Record};
use e2e::program::Program;
use e2e::until;
use sqlx::Row;
use sqlx::mysql::{MySqlPool, MySqlRow};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Stage;

/// No step may take longer.
const STEP: Duration = Duration::from_secs(30);

/// A clock that starts with the request.
struct Clock(Instant);

impl Clock {
    fn step(&self, title: &str) {
        println!("\n{:>6} ms  {title}", self.0.elapsed().as_millis());
    }
}

fn show(text: &str) {
    println!("           {text}");
}

/// Tells it; answers the relay, which starts in the middle, and the first return.
pub(crate) async fn tell(stage: &Stage, api: SocketAddr) -> anyhow::Result<(Program, i64)> {
    let pool = MySqlPool::connect_lazy(&stage.env["DATABASE_URL"])?;
    println!("One return, step by step. The relay starts only after the outbox was shown.");
    let clock = Clock(Instant::now());
    let return_id = file(stage, api, stage.order, &clock).await?;
    let event = show_outbox_row(&pool, return_id, &clock).await?;
    let relay = Program::start("outbox-relay", &stage.env).await?;
    clock.step("The relay has started and reads the outbox");
    show_record(stage, event, &clock).await?;
    wait_refunded(stage, api, return_id, &clock).await?;
    show_refund(&pool, return_id, &clock).await?;
    show_audit(&pool, return_id, &clock).await?;

    println!("\nAnother return, now that everything runs:");
    let clock = Clock(Instant::now());
    let second = file(stage, api, stage.order + 1, &clock).await?;
    wait_refunded(stage, api, second, &clock).await?;
    pool.close().await;
    Ok((relay, return_id))
}

async fn file(stage: &Stage, api: SocketAddr, order: i64, clock: &Clock) -> anyhow::Result<i64> {
    clock.step("The customer files a return");
    show(&format!("POST http://{api}/returns"));
    show(&format!(
        r#"{{"order_id":{order},"reason":"does not fit"}}"#
    ));
    let answer = stage.customer.file(api, order, None).await?;
    clock.step(&format!("The api answers {}", answer.status));
    show(&answer.body.to_string());
    answer
        .return_id()
        .with_context(|| format!("not filed: {answer:?}"))
}

async fn show_outbox_row(pool: &MySqlPool, return_id: i64, clock: &Clock) -> anyhow::Result<Uuid> {
    let row = sqlx::query(
        "SELECT shard, id, event_id, seq, event_type, topic, msg_key, CONVERT(payload USING utf8mb4) AS payload, \
         traceparent FROM outbox WHERE aggregate_id = ? AND seq = 1",
    )
    .bind(return_id)
    .fetch_one(pool)
    .await
    .context("no outbox row")?;
    let event: Uuid = row.try_get("event_id")?;
    clock.step("The outbox row, committed with the return");
    show(&format!(
        "shard {} id {} event_id {event} seq {} {}",
        row.try_get::<u8, _>("shard")?,
        row.try_get::<i64, _>("id")?,
        row.try_get::<i32, _>("seq")?,
        text(&row, "event_type")?,
    ));
    show(&format!(
        "topic {} key {} payload {}",
        text(&row, "topic")?,
        text(&row, "msg_key")?,
        text(&row, "payload")?
    ));
    show(&format!("traceparent {}", text(&row, "traceparent")?));
    Ok(event)
}

async fn show_record(stage: &Stage, event: Uuid, clock: &Clock) -> anyhow::Result<()> {
    let mut found: Option<Record> = None;
    until("the record in Kafka", STEP, async || {
        let brokers = &stage.env["KAFKA_BROKERS"];
        let records = kafka_log::read_all(brokers, &["order.returns"]).await?;
        found = records
            .into_iter()
            .find(|record| record.header("ce_id") == Some(event.to_string().as_str()));
        Ok(found.is_some())
    })
    .await?;
    let record = found.context("found above")?;
    clock.step("The record in Kafka");
    show(&format!(
        "{}[{}]@{} key {} value {}",
        record.topic, record.partition, record.offset, record.key, record.payload
    ));
    for (name, value) in &record.headers {
        show(&format!("  {name}: {value}"));
    }
    Ok(())
}

/// Between two looks at a return: well below the 50 requests a second that a caller may make.
const PACE: Duration = Duration::from_millis(25);

async fn wait_refunded(
    stage: &Stage,
    api: SocketAddr,
    return_id: i64,
    clock: &Clock,
) -> anyhow::Result<()> {
    let mut last = String::new();
    until("the return is refunded", STEP, async || {
        let status = stage.customer.status(api, return_id).await?;
        if status != last {
            clock.step(&format!("The customer sees: {status}"));
            last = status;
        }
        // A customer has a rate (RATE_PER_CALLER), and nothing here turns it off.
        tokio::time::sleep(PACE).await;
        Ok(last == "refunded")
    })
    .await
}

async fn show_refund(pool: &MySqlPool, return_id: i64, clock: &Clock) -> anyhow::Result<()> {
    let row = sqlx::query(
        "SELECT CAST(attempt AS SIGNED) AS attempt, idempotency_key, CAST(amount AS CHAR) AS amount, currency, state, \
         gateway, gateway_ref FROM refunds WHERE return_id = ?",
    )
    .bind(return_id)
    .fetch_one(pool)
    .await?;
    clock.step("The refund (the payment provider is simulated)");
    show(&format!(
        "attempt {} {} {} {} at {} as {}",
        row.try_get::<i64, _>("attempt")?,
        text(&row, "state")?,
        text(&row, "amount")?,
        text(&row, "currency")?,
        text(&row, "gateway")?,
        text(&row, "gateway_ref")?,
    ));
    show(&format!(
        "idempotency key {}",
        text(&row, "idempotency_key")?
    ));
    ensure!(
        text(&row, "state")? == "succeeded",
        "the attempt did not succeed"
    );
    Ok(())
}

async fn show_audit(pool: &MySqlPool, return_id: i64, clock: &Clock) -> anyhow::Result<()> {
    let rows = sqlx::query(
        "SELECT seq, event_type, actor_type, actor_id, created_at, LEFT(prev_hash, 8) AS prev_hash, \
         LEFT(hash, 8) AS hash FROM return_events WHERE return_id = ? ORDER BY seq",
    )
    .bind(return_id)
    .fetch_all(pool)
    .await?;
    clock.step("The audit trail, each row hashed over the one before");
    for row in &rows {
        let at: OffsetDateTime = row.try_get("created_at")?;
        show(&format!(
            "{} {:<17} by {}:{} at {} {}… -> {}…",
            row.try_get::<i32, _>("seq")?,
            text(row, "event_type")?,
            text(row, "actor_type")?,
            text(row, "actor_id")?,
            shared::domain::audit::timestamp_text(at),
            text(row, "prev_hash")?,
            text(row, "hash")?,
        ));
    }
    ensure!(rows.len() == 4, "expected four audit rows");
    Ok(())
}

fn text(row: &MySqlRow, column: &str) -> anyhow::Result<String> {
    Ok(row.try_get(column)?)
}
