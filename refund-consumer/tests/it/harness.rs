//! A database and a topic per test, a running consumer, and waiting for conditions.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use clap::Parser;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::FutureProducer;
use refund_consumer::app::{Drain, RefundConsumer};
use refund_consumer::config::Config;
use refund_consumer::error::Error;
use refund_consumer::gateway::RefundGateway;
use refund_consumer::gateway::simulated::Simulated;
use refund_consumer::metrics::Metrics;
use shared::domain::actor::Actor;
use shared::domain::audit::AuditRow;
use shared::domain::event::{Envelope, NewReturnEvent, TopicArgs};
use shared::domain::ids::{CustomerId, EventId, OrderId, ReturnId};
use shared::domain::money::{Currency, Money};
use shared::domain::trace_context::TraceContext;
use shared::domain::transition::{self, Cause, Filed, NewReturn};
use shared::runtime::program::{Cli, Settings};
use shared::test_support::{self, Condition, TestDb, audit_trail, env};
use sqlx::Row;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) mod decisions;
pub(crate) mod fake;
pub(crate) mod provider;
pub(crate) mod records;
mod shown;
pub(crate) mod wire;

use records::{Message, Sending};

pub(crate) const CUSTOMER: CustomerId = CustomerId(42);
/// Long enough to join a group on a busy machine; a failing test waits this long.
pub(crate) const WAIT_DEADLINE: Duration = Duration::from_secs(40);

pub(crate) struct World {
    pub(crate) db: TestDb,
    pub(crate) topics: TopicArgs,
    pub(crate) group: String,
    dir: tempfile::TempDir,
    /// Opened at its first use, and shared by the consumers of this process.
    simulated: OnceLock<Simulated>,
    producer: FutureProducer,
}

/// A consumer that runs in this process.
pub(crate) struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<Drain, Error>>,
    pub(crate) metrics: Metrics,
    pub(crate) ops: SocketAddr,
}

/// An audit row as stored.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) seq: i32,
    pub(crate) event_id: EventId,
    pub(crate) event_type: String,
    pub(crate) actor: (String, String),
    pub(crate) data: serde_json::Value,
    pub(crate) trace_id: Option<String>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_partitions(2).await
    }

    pub(crate) async fn with_partitions(partitions: i32) -> Self {
        let name = Uuid::now_v7().simple().to_string();
        let topics = TopicArgs {
            topic_returns: format!("it.{name}.returns"),
            topic_status: format!("it.{name}.status"),
        };
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", env("KAFKA_BROKERS"));
        let admin: AdminClient<DefaultClientContext> = client.create().expect("an admin client");
        let topic = NewTopic::new(
            &topics.topic_returns,
            partitions,
            TopicReplication::Fixed(1),
        )
        .set("max.message.bytes", "2000000");
        let created = admin
            .create_topics(&[topic], &AdminOptions::new())
            .await
            .expect("Kafka of KAFKA_BROKERS");
        assert!(created.iter().all(Result::is_ok), "{created:?}");
        client
            .set("message.max.bytes", "2000000")
            .set("linger.ms", "0");
        Self {
            db: TestDb::create().await,
            topics,
            group: format!("it-{name}"),
            dir: tempfile::tempdir().expect("a folder"),
            simulated: OnceLock::new(),
            producer: client.create().expect("a producer"),
        }
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.dir.path().join("ledger.jsonl")
    }

    pub(crate) fn simulated(&self) -> Simulated {
        let open = || Simulated::open(&self.ledger(), Duration::ZERO, false).expect("a ledger");
        self.simulated.get_or_init(open).clone()
    }

    /// Lines of the ledger: one per effect.
    pub(crate) fn effects(&self) -> usize {
        std::fs::read_to_string(self.ledger())
            .unwrap_or_default()
            .lines()
            .count()
    }

    /// Starts a consumer with quick scans and short pauses; `extra` flags come last.
    pub(crate) async fn start<G: RefundGateway>(&self, gateway: G, extra: &[&str]) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let ops = listener.local_addr().expect("bound");
        let cli = Cli::<Config>::try_parse_from(self.args(extra));
        let config = cli.expect("good settings").settings;
        assert_eq!(config.problems(), Vec::<String>::new());
        let stop = CancellationToken::new();
        let built = RefundConsumer::build(config, gateway, stop.clone()).await;
        let consumer = built.expect("build");
        let metrics = consumer.metrics();
        let task = tokio::spawn(consumer.run(listener));
        Running {
            stop,
            task,
            metrics,
            ops,
        }
    }

    pub(crate) fn args(&self, extra: &[&str]) -> Vec<String> {
        let mut args = vec![
            "refund-consumer".to_owned(),
            format!("--kafka-brokers={}", env("KAFKA_BROKERS")),
            format!("--topic-returns={}", self.topics.topic_returns),
            format!("--topic-status={}", self.topics.topic_status),
            format!("--simulated-ledger={}", self.ledger().display()),
        ];
        let defaults = [
            ("--database-url", self.db.url()),
            ("--consumer-group", self.group.as_str()),
            ("--refund-gateway", "simulated"),
            ("--reconcile-interval-ms", "100"),
            ("--lookup-backoff-ms", "50"),
        ];
        for (name, value) in defaults {
            if !extra
                .iter()
                .any(|flag| flag.starts_with(&format!("{name}=")))
            {
                args.push(format!("{name}={value}"));
            }
        }
        args.extend(extra.iter().map(|flag| (*flag).to_owned()));
        args
    }

    /// Seeds order `id` and files a return for it, without a message.
    pub(crate) async fn file(&self, id: i64) -> Filed {
        self.file_with(id, false).await
    }

    pub(crate) async fn file_with(&self, id: i64, review_required: bool) -> Filed {
        self.file_all(id..=id, review_required).await[0]
    }

    /// Seeds these orders and files a return for each, without messages.
    pub(crate) async fn file_all(
        &self,
        orders: RangeInclusive<i64>,
        review_required: bool,
    ) -> Vec<Filed> {
        let count = orders.end() - orders.start() + 1;
        self.db.seed_orders(*orders.start(), count, CUSTOMER).await;
        let new: Vec<NewReturn> = orders.map(|id| new_return(id, review_required)).collect();
        let mut filed = Vec::with_capacity(new.len());
        for group in new.chunks(100) {
            filed.extend(self.open(group, 0).await);
        }
        filed
    }

    /// Files a return for each of these orders, all at the same microsecond `days` ago and on the last day of its
    /// order's window; the orders of `for_review` need it. Without messages.
    pub(crate) async fn file_days_ago(
        &self,
        days: i64,
        orders: RangeInclusive<i64>,
        for_review: impl Fn(i64) -> bool,
    ) -> Vec<Filed> {
        let (first, count) = (*orders.start(), orders.clone().count());
        let count = i64::try_from(count).expect("it fits");
        self.db.seed_orders(first, count, CUSTOMER).await;
        let new: Vec<NewReturn> = orders.map(|id| new_return(id, for_review(id))).collect();
        let filed = self.open(&new, days).await;
        self.execute(
            "UPDATE orders o JOIN returns r ON r.order_id = o.id \
             SET o.delivered_at = r.created_at - INTERVAL 30 DAY WHERE o.id >= ?",
            first,
        )
        .await;
        filed
    }

    /// Files another return for the order of `filed`, which an index does not allow while that one is open. Without a
    /// message.
    pub(crate) async fn file_again(&self, filed: &Filed) -> Filed {
        self.open(&[new_return(filed.order_id.0, true)], 0).await[0]
    }

    async fn open(&self, new: &[NewReturn], days_ago: i64) -> Vec<Filed> {
        let mut tx = self.db.pool.begin().await.expect("begin");
        let now: OffsetDateTime = sqlx::query_scalar("SELECT UTC_TIMESTAMP(6)")
            .fetch_one(&mut *tx)
            .await
            .expect("the clock");
        let now = now - time::Duration::days(days_ago);
        let opened = transition::open(&mut tx, now, new).await.expect("open");
        let filed = opened
            .announce(&mut tx, &self.topics)
            .await
            .expect("announce");
        tx.commit().await.expect("commit");
        filed
    }

    /// The message as the relay sends it; returns partition and offset.
    pub(crate) async fn announce(&self, filed: &Filed) -> (i32, i64) {
        let order = filed.order_id.to_string();
        self.send(Some(&order), Some(&body(filed)), &headers(filed))
            .await
    }

    /// Sends any record; returns partition and offset.
    pub(crate) async fn send(
        &self,
        key: Option<&str>,
        payload: Option<&[u8]>,
        headers: &[(&str, Vec<u8>)],
    ) -> (i32, i64) {
        let named = |(name, value): &(&str, Vec<u8>)| ((*name).to_owned(), Some(value.clone()));
        let message = Message {
            key: key.map(Into::into),
            payload: payload.map(Into::into),
            headers: headers.iter().map(named).collect(),
        };
        self.send_all(&[Sending::of(message)]).await[0]
    }

    pub(crate) async fn status(&self, id: ReturnId) -> (String, i32) {
        let row = sqlx::query("SELECT status, version FROM returns WHERE id = ?")
            .bind(id)
            .fetch_one(&self.db.pool)
            .await
            .expect("a return");
        (row.get("status"), row.get("version"))
    }

    pub(crate) async fn wait_for(&self, id: ReturnId, status: &str) {
        until(&format!("return {id} is {status}"), || async {
            let (now, version) = self.status(id).await;
            (now == status).then_some(version)
        })
        .await;
    }

    /// What was refunded of the order by its returns.
    pub(crate) async fn refunded_amount(&self, order: OrderId) -> String {
        self.text(
            "SELECT CAST(COALESCE(SUM(refund_amount), 0) AS CHAR) FROM returns WHERE order_id = ? AND status = 'refunded'",
            order.0,
        )
        .await
    }

    pub(crate) async fn attempt_state(&self, id: ReturnId, attempt: i32) -> String {
        let query = "SELECT state FROM refunds WHERE return_id = ? AND attempt = ?";
        sqlx::query_scalar(query)
            .bind(id)
            .bind(attempt)
            .fetch_one(&self.db.pool)
            .await
            .expect("an attempt")
    }

    async fn text(&self, query: &'static str, id: i64) -> String {
        sqlx::query_scalar(query)
            .bind(id)
            .fetch_one(&self.db.pool)
            .await
            .expect("a row")
    }

    pub(crate) async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query)
            .fetch_one(&self.db.pool)
            .await
            .expect("a count")
    }

    pub(crate) async fn execute(&self, statement: &'static str, id: i64) {
        sqlx::query(statement)
            .bind(id)
            .execute(&self.db.pool)
            .await
            .expect(statement);
    }

    /// The audit trail of a return; fails unless it is gap-free, hashes, and agrees with the outbox and the row.
    pub(crate) async fn audited(&self, id: ReturnId) -> Vec<Event> {
        let rows = audit_trail::read_verified(&self.db.pool, Some(id)).await;
        let rows = rows.unwrap_or_else(|broken| panic!("{broken}"));
        let events: Vec<Event> = rows.into_iter().map(event).collect();
        let (status, version) = self.status(id).await;
        let last = events.last().expect("at least one event");
        assert_eq!(last.seq, version);
        assert_eq!(last.data["to"], status);
        let announced: Vec<(i32, EventId)> = sqlx::query_as(
            "SELECT seq, event_id FROM outbox WHERE aggregate_id = ? ORDER BY shard, id",
        )
        .bind(id)
        .fetch_all(&self.db.pool)
        .await
        .expect("the outbox");
        let audited: Vec<(i32, EventId)> = events
            .iter()
            .map(|event| (event.seq, event.event_id))
            .collect();
        assert_eq!(announced, audited, "outbox and audit trail differ");
        events
    }
}

pub(crate) const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

pub(crate) fn body(filed: &Filed) -> Vec<u8> {
    serde_json::to_vec(&NewReturnEvent {
        return_id: filed.return_id,
        order_id: filed.order_id,
    })
    .expect("plain data")
}

/// As the relay sends them.
fn headers(filed: &Filed) -> Vec<(&'static str, Vec<u8>)> {
    let envelope = Envelope {
        event_id: filed.event_id,
        event_type: "return.initiated",
        return_id: filed.return_id,
        seq: 1,
        created_at: OffsetDateTime::now_utc(),
        traceparent: Some(TRACEPARENT),
        tracestate: None,
        epoch: 1,
    };
    let headers = envelope.headers().into_iter();
    headers
        .map(|(name, value)| (name, value.into_bytes()))
        .collect()
}

fn new_return(order: i64, review_required: bool) -> NewReturn {
    NewReturn {
        order_id: OrderId(order),
        customer_id: CUSTOMER,
        filed_by: None,
        reason: "too small".to_owned(),
        reason_code: None,
        review_required,
        refund_amount: Money::new(
            "49.90".parse().expect("a decimal"),
            Currency::parse("EUR").expect("a code"),
        ),
        cause: Cause {
            actor: Actor::customer(CUSTOMER),
            request_id: Some(format!("req-{order}")),
            trace: TraceContext::new_root(),
        },
    }
}

fn event(row: AuditRow) -> Event {
    Event {
        seq: row.seq,
        event_id: row.event_id,
        event_type: row.event_type,
        actor: (row.actor.kind.as_str().to_owned(), row.actor.id),
        data: serde_json::from_str(&row.event_data).expect("JSON"),
        trace_id: row.trace_id,
    }
}

impl Running {
    pub(crate) fn messages(&self, result: &str) -> u64 {
        self.metrics
            .intake
            .messages
            .with_label_values(&[result])
            .get()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    pub(crate) fn ask_to_stop(&self) {
        self.stop.cancel();
    }

    /// Stops it as SIGTERM does.
    pub(crate) async fn stop(self) -> Drain {
        self.ask_to_stop();
        let ended = tokio::time::timeout(WAIT_DEADLINE, self.task)
            .await
            .expect("it stops in time");
        ended.expect("no panic").expect("a clean end")
    }
}

/// Waits for a condition up to [`WAIT_DEADLINE`].
pub(crate) async fn until<C: Condition, F: Future<Output = C>>(
    what: &str,
    check: impl FnMut() -> F,
) -> C::Value {
    test_support::until(what, WAIT_DEADLINE, check).await
}

/// [`until`] for a condition that needs no waiting itself.
pub(crate) async fn until_true(what: &str, check: impl Fn() -> bool) {
    until(what, || std::future::ready(check())).await;
}

pub(crate) fn types(events: &[Event]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event.event_type.as_str())
        .collect()
}
