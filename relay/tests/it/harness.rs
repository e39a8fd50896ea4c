//! A database and two topics, relays that use them, and the records in Kafka afterwards.

mod broker_proxy;
mod faulty_publisher;
mod follower;
mod history;
mod topics;

use std::collections::HashMap;
use std::time::Duration;

use clap::Parser;
use relay::config::Config;
use relay::error::RelayError;
use relay::metrics::Metrics;
use relay::publisher::Publish;
use relay::publisher::kafka::KafkaPublisher;
use relay::{Drain, Relay};
use shared::domain::ids::{EventId, OrderId, Shard};
use shared::runtime::program::{Cli, Settings};
use shared::test_support::{self, Condition, TestDb, env};
use sqlx::mysql::MySqlPool;
use sqlx::{Executor, MySql};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) use broker_proxy::BrokerProxy;
pub(crate) use faulty_publisher::FaultyPublisher;
pub(crate) use follower::Follower;
pub(crate) use history::{assert_history, history};
pub(crate) use shared::test_support::topics::Record;
pub(crate) use topics::Topics;

/// The deadline of every wait: much longer than a loaded machine needs.
pub(crate) const WAIT_DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Fixture {
    pub(crate) db: TestDb,
    pub(crate) topics: Topics,
}

impl Fixture {
    pub(crate) async fn create() -> Self {
        let (db, topics) = tokio::join!(TestDb::create(), Topics::create(6));
        Self { db, topics }
    }

    pub(crate) fn pool(&self) -> &MySqlPool {
        &self.db.pool
    }

    /// The settings of a relay on this fixture.
    pub(crate) fn config(&self, extra: &[&str]) -> Config {
        let name = ["outbox-relay".to_owned()];
        let cli = Cli::<Config>::parse_from(name.into_iter().chain(self.args(extra)));
        assert_eq!(cli.settings.problems(), [""; 0]);
        cli.settings
    }

    pub(crate) fn args(&self, extra: &[&str]) -> Vec<String> {
        let mut args = vec![
            format!("--database-url={}", self.db.url()),
            format!("--kafka-brokers={}", env("KAFKA_BROKERS")),
            "--ops-listen=127.0.0.1:0".to_owned(),
        ];
        for extra in extra {
            let name = extra.split('=').next().unwrap_or_default();
            args.retain(|arg| !arg.starts_with(name));
            args.push((*extra).to_owned());
        }
        args
    }

    pub(crate) async fn relay(&self) -> RunningRelay {
        self.relay_under(&[]).await
    }

    /// A relay with further flags.
    pub(crate) async fn relay_under(&self, flags: &[&str]) -> RunningRelay {
        let cfg = self.config(flags);
        self.relay_with(cfg.clone(), KafkaPublisher::new(&cfg.kafka))
            .await
    }

    pub(crate) async fn relay_with<P: Publish>(&self, cfg: Config, publisher: P) -> RunningRelay {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let ops = listener.local_addr().expect("bound");
        let relay = Relay::connect(cfg, publisher).await.expect("a relay");
        let stop = CancellationToken::new();
        RunningRelay {
            metrics: relay.metrics().clone(),
            ops,
            task: tokio::spawn(relay.run(listener, stop.clone())),
            stop,
        }
    }

    /// Inserts one event in a transaction of its own.
    pub(crate) async fn insert(&self, event: &Event) -> i64 {
        self.insert_on(self.pool(), event).await
    }

    pub(crate) async fn insert_on<'e>(
        &self,
        executor: impl Executor<'e, Database = MySql>,
        event: &Event,
    ) -> i64 {
        let id = self
            .insert_all_on(executor, std::slice::from_ref(event))
            .await;
        i64::try_from(id).expect("a BIGINT")
    }

    /// Inserts events in their order, a few hundred per statement.
    pub(crate) async fn insert_all(&self, events: &[Event]) {
        for chunk in events.chunks(500) {
            self.insert_all_on(self.pool(), chunk).await;
        }
    }

    /// Inserts events in their order in one transaction: a relay reads all of them or none.
    pub(crate) async fn insert_at_once(&self, events: &[Event]) {
        let mut tx = self.pool().begin().await.expect("begin");
        for chunk in events.chunks(500) {
            self.insert_all_on(&mut *tx, chunk).await;
        }
        tx.commit().await.expect("commit");
    }

    /// Inserts events with one statement, in their order. Returns the first id.
    pub(crate) async fn insert_all_on<'e>(
        &self,
        executor: impl Executor<'e, Database = MySql>,
        events: &[Event],
    ) -> u64 {
        let mut insert = sqlx::QueryBuilder::new(
            "INSERT INTO outbox (shard, event_id, aggregate_id, seq, event_type, topic, msg_key, payload, \
             traceparent, tracestate, created_at) ",
        );
        insert.push_values(events, |mut values, event| {
            values
                .push_bind(Shard::of(OrderId(event.order_id)))
                .push_bind(event.event_id)
                .push_bind(event.return_id)
                .push_bind(event.seq)
                .push_bind("return.tested")
                .push_bind(
                    event
                        .topic
                        .as_deref()
                        .unwrap_or(self.topics.of_seq(event.seq)),
                )
                .push_bind(event.order_id.to_string())
                .push_bind(event.payload.clone())
                .push_bind("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
                .push_bind(None::<String>)
                .push_bind(OffsetDateTime::now_utc());
        });
        insert
            .build()
            .execute(executor)
            .await
            .expect("insert")
            .last_insert_id()
    }

    pub(crate) async fn count(&self, table: &'static str) -> i64 {
        let sql = match table {
            "outbox" => "SELECT COUNT(*) FROM outbox",
            "outbox_parked" => "SELECT COUNT(*) FROM outbox_parked",
            "outbox_relay" => "SELECT COUNT(*) FROM outbox_relay",
            other => panic!("no count for {other}"),
        };
        sqlx::query_scalar(sql)
            .fetch_one(self.pool())
            .await
            .expect("count")
    }

    pub(crate) async fn outbox_is_empty(&self) {
        until("the outbox is empty", || async {
            self.count("outbox").await == 0
        })
        .await;
    }

    /// Does what `returnsctl` does for a redrive: with the lease row locked, the rows return with their own ids, and the
    /// generation rises. Returns how many rows were put back.
    pub(crate) async fn redrive(&self, shard: Shard) -> u64 {
        let mut tx = self.pool().begin().await.expect("begin");
        let steps = [
            "SELECT epoch FROM outbox_lease WHERE shard = ? FOR UPDATE",
            "INSERT INTO outbox (shard, id, event_id, aggregate_id, seq, event_type, topic, msg_key, payload, \
             traceparent, tracestate, created_at) SELECT shard, id, event_id, aggregate_id, seq, event_type, topic, \
             msg_key, payload, traceparent, tracestate, created_at FROM outbox_parked WHERE shard = ?",
            "DELETE FROM outbox_parked WHERE shard = ?",
            "UPDATE outbox_lease SET redrive_gen = redrive_gen + 1 WHERE shard = ?",
        ];
        let mut rows = 0;
        for step in steps {
            let done = sqlx::query(step).bind(shard).execute(&mut *tx).await;
            let affected = done.expect(step).rows_affected();
            if step.starts_with("DELETE") {
                rows = affected;
            }
        }
        tx.commit().await.expect("commit");
        rows
    }

    /// How many sessions of this database are running the statement `name`.
    pub(crate) async fn running(&self, name: &str) -> i64 {
        sqlx::query_scalar(
            "SELECT COUNT(*) FROM performance_schema.processlist WHERE db = DATABASE() AND info LIKE ? \
             AND id <> CONNECTION_ID()",
        )
        .bind(format!("%/* {name} */%"))
        .fetch_one(self.pool())
        .await
        .expect("the process list")
    }

    /// Whether the last runs of the statement `name` have returned no rows: five to ten of them, as many as the server
    /// remembers of a session.
    pub(crate) async fn returns_no_rows(&self, name: &str) -> bool {
        let (runs, rows): (i64, u64) = sqlx::query_as(
            "SELECT COUNT(*), CAST(COALESCE(SUM(rows_sent), 0) AS UNSIGNED) \
             FROM performance_schema.events_statements_history WHERE event_name = 'statement/com/Execute' \
             AND current_schema = DATABASE() AND sql_text LIKE ?",
        )
        .bind(format!("/* {name} */%"))
        .fetch_one(self.pool())
        .await
        .expect("the last statements of each session");
        runs >= 5 && rows == 0
    }

    /// The number of shards of each owner.
    pub(crate) async fn owners(&self) -> HashMap<String, i64> {
        sqlx::query_as(
            "SELECT owner, COUNT(*) FROM outbox_lease WHERE owner IS NOT NULL GROUP BY owner",
        )
        .fetch_all(self.pool())
        .await
        .expect("owners")
        .into_iter()
        .collect()
    }
}

/// An event to insert.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) order_id: i64,
    pub(crate) return_id: i64,
    pub(crate) seq: i32,
    pub(crate) event_id: EventId,
    pub(crate) payload: Vec<u8>,
    /// Another topic than that of its seq.
    pub(crate) topic: Option<String>,
}

impl Event {
    pub(crate) fn new(order_id: i64, return_id: i64, seq: i32) -> Self {
        Self {
            order_id,
            return_id,
            seq,
            event_id: EventId::generate(),
            payload: format!(r#"{{"return_id":{return_id},"order_id":{order_id}}}"#).into_bytes(),
            topic: None,
        }
    }

    pub(crate) fn to(mut self, topic: &str) -> Self {
        self.topic = Some(topic.to_owned());
        self
    }
}

/// A relay inside the test process.
pub(crate) struct RunningRelay {
    pub(crate) metrics: Metrics,
    pub(crate) ops: std::net::SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<Result<Drain, RelayError>>,
}

impl RunningRelay {
    /// How often database work has failed.
    pub(crate) fn database_errors(&self, work: &str, code: &str) -> u64 {
        let errors = &self.metrics.database_errors;
        errors.with_label_values(&[work, code]).get()
    }

    /// A page of the operator's endpoints.
    pub(crate) async fn ops_page(&self, path: &str) -> String {
        let mut connection = TcpStream::connect(self.ops).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n");
        connection
            .write_all(request.as_bytes())
            .await
            .expect("it listens");
        let mut page = String::new();
        connection.read_to_string(&mut page).await.expect("text");
        page
    }

    pub(crate) async fn stop(self) -> Drain {
        self.stop.cancel();
        let ended = tokio::time::timeout(WAIT_DEADLINE, self.task).await;
        ended
            .expect("the relay ends")
            .expect("no panic")
            .expect("no error")
    }
}

/// Waits for a condition up to [`WAIT_DEADLINE`].
pub(crate) async fn until<C: Condition, F: Future<Output = C>>(
    what: &str,
    check: impl FnMut() -> F,
) -> C::Value {
    test_support::until(what, WAIT_DEADLINE, check).await
}
