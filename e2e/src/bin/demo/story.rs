//! The steps of the story, each shown with the time since the request was sent.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::until;
use shared::test_support::topics::{self, Record};
use sqlx::Row;
use sqlx::mysql::{MySqlPool, MySqlRow};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::programs::LikelyCause;
use crate::stage::Stage;

/// No step may take longer.
const STEP: Duration = Duration::from_secs(30);
/// Between two reads of a return: well below the 50 requests a second that a caller may send.
const POLL: Duration = Duration::from_millis(25);

const NOT_FILED: LikelyCause = LikelyCause {
    program: "returns-api",
    cause: "the api cannot use MySQL, or too many events wait in the outbox",
};
const NOT_PUBLISHED: LikelyCause = LikelyCause {
    program: "outbox-relay",
    cause: "the relay cannot reach Kafka, or another relay still owns the shard",
};
const NOT_REFUNDED: LikelyCause = LikelyCause {
    program: "refund-consumer",
    cause: "the refund consumer cannot read from Kafka, or its gateway does not answer",
};

/// A clock that starts with the request.
struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn step(&self, title: &str) {
        println!("\n{:>6} ms  {title}", self.0.elapsed().as_millis());
    }
}

fn show(text: &str) {
    println!("           {text}");
}

/// The first return, as far as its outbox row.
pub(crate) struct FirstReturn {
    clock: Clock,
    return_id: i64,
    event: Uuid,
}

impl FirstReturn {
    pub(crate) fn return_id(&self) -> i64 {
        self.return_id
    }
}

pub(crate) struct Story<'a> {
    stage: &'a Stage,
    api: SocketAddr,
    pool: MySqlPool,
}

impl<'a> Story<'a> {
    pub(crate) fn new(stage: &'a Stage, api: SocketAddr) -> anyhow::Result<Self> {
        let pool = MySqlPool::connect_lazy(&stage.env["DATABASE_URL"])?;
        Ok(Self { stage, api, pool })
    }

    pub(crate) fn stage(&self) -> &Stage {
        self.stage
    }

    /// The trace that began with the request.
    pub(crate) async fn trace_id(&self, first: &FirstReturn) -> anyhow::Result<String> {
        let trace_id = sqlx::query_scalar(
            "SELECT trace_id FROM return_events WHERE return_id = ? AND seq = 1",
        )
        .bind(first.return_id)
        .fetch_one(&self.pool)
        .await?;
        Ok(trace_id)
    }

    /// Files a return while no relay runs, so that its event can be seen in the outbox.
    pub(crate) async fn file_and_show_outbox(&self) -> anyhow::Result<FirstReturn> {
        let clock = Clock::start();
        let return_id = self.file(self.stage.order, &clock).await?;
        let event = show_outbox_row(&self.pool, return_id, &clock).await?;
        Ok(FirstReturn {
            clock,
            return_id,
            event,
        })
    }

    /// Follows it to Kafka, the refund and the audit trail.
    pub(crate) async fn follow(&self, first: &FirstReturn) -> anyhow::Result<()> {
        let (clock, id) = (&first.clock, first.return_id);
        clock.step("The relay has started and reads the outbox");
        self.show_record(first.event, clock)
            .await
            .context(NOT_PUBLISHED)?;
        self.wait_refunded(id, clock).await?;
        show_refund(&self.pool, id, clock).await?;
        show_audit(&self.pool, id, clock).await
    }

    pub(crate) async fn file_another(&self) -> anyhow::Result<()> {
        let clock = Clock::start();
        let return_id = self.file(self.stage.order + 1, &clock).await?;
        self.wait_refunded(return_id, &clock).await
    }

    /// Files a return that waits for an admin, and answers its id.
    pub(crate) async fn file_for_review(&self) -> anyhow::Result<i64> {
        println!("\nA return of an expensive order, which an admin has to approve:");
        self.file(self.stage.expensive_order, &Clock::start()).await
    }

    async fn file(&self, order: i64, clock: &Clock) -> anyhow::Result<i64> {
        clock.step("The customer files a return");
        show(&format!("POST http://{}/returns", self.api));
        show(&format!(
            r#"{{"order_id":{order},"reason":"does not fit"}}"#
        ));
        let response = self.stage.customer.file(self.api, order, None).await?;
        clock.step(&format!("The api responds {}", response.status));
        show(&response.body.to_string());
        response
            .return_id()
            .with_context(|| format!("not filed: {response:?}"))
            .context(NOT_FILED)
    }

    async fn show_record(&self, event: Uuid, clock: &Clock) -> anyhow::Result<()> {
        let mut found: Option<Record> = None;
        until("the record in Kafka", STEP, async || {
            let brokers = &self.stage.env["KAFKA_BROKERS"];
            let records = topics::read_all(brokers, &["order.returns"]).await?;
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
            record.topic,
            record.partition,
            record.offset,
            record.key,
            String::from_utf8_lossy(&record.payload)
        ));
        for (name, value) in &record.headers {
            show(&format!("  {name}: {value}"));
        }
        Ok(())
    }

    async fn wait_refunded(&self, return_id: i64, clock: &Clock) -> anyhow::Result<()> {
        let mut last = String::new();
        until("the return is refunded", STEP, async || {
            let status = self.stage.customer.status(self.api, return_id).await?;
            if status != last {
                clock.step(&format!("The customer sees: {status}"));
                last = status;
            }
            tokio::time::sleep(POLL).await;
            Ok(last == "refunded")
        })
        .await
        .context(NOT_REFUNDED)
    }
}

async fn show_outbox_row(pool: &MySqlPool, return_id: i64, clock: &Clock) -> anyhow::Result<Uuid> {
    let row = sqlx::query(
        "SELECT shard, id, event_id, seq, event_type, topic, msg_key, CONVERT(payload USING utf8mb4) AS payload, \
         traceparent FROM outbox WHERE aggregate_id = ? AND seq = 1",
    )
    .bind(return_id)
    .fetch_one(pool)
    .await
    .context("no outbox row; another relay may have sent and deleted it already")?;
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
            shared::domain::timestamp::timestamp_text(at),
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
