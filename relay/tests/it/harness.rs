//! A database, two topics, relays on them, and what Kafka holds afterwards.

mod faulty;
mod topics;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use clap::Parser;
use relay::config::{Cli, Config};
use relay::error::RelayError;
use relay::metrics::Metrics;
use relay::publisher::{Kafka, Publish};
use relay::{Drain, Relay};
use shared::ids::{EventId, OrderId, Shard};
use shared::test_support::{TestDb, env};
use sqlx::mysql::MySqlPool;
use sqlx::{Executor, MySql};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) use faulty::Faulty;
pub(crate) use topics::{Seen, Topics};

/// Every wait of these tests ends here, well above what a loaded machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Stage {
    pub(crate) db: TestDb,
    pub(crate) topics: Topics,
}

impl Stage {
    pub(crate) async fn set() -> Self {
        let (db, topics) = tokio::join!(TestDb::create(), Topics::create(6));
        Self { db, topics }
    }

    pub(crate) fn pool(&self) -> &MySqlPool {
        &self.db.pool
    }

    /// The settings of a relay on this stage; leases short enough for a test to see them end.
    pub(crate) fn config(&self, extra: &[&str]) -> Config {
        let cli = Cli::parse_from(
            ["outbox-relay"]
                .into_iter()
                .map(str::to_owned)
                .chain(self.args(extra)),
        );
        assert_eq!(cli.config.problems(), [""; 0]);
        cli.config
    }

    pub(crate) fn args(&self, extra: &[&str]) -> Vec<String> {
        let mut args = vec![
            format!("--database-url={}", self.db.url()),
            format!("--kafka-brokers={}", env("KAFKA_BROKERS")),
            "--lease-ms=2000".to_owned(),
            "--ops-listen=127.0.0.1:0".to_owned(),
        ];
        for extra in extra {
            let name = extra.split('=').next().unwrap_or_default();
            args.retain(|arg| !arg.starts_with(name));
            args.push((*extra).to_owned());
        }
        args
    }

    pub(crate) async fn relay(&self) -> Running {
        let cfg = self.config(&[]);
        self.relay_with(cfg.clone(), Kafka::new(&cfg.kafka)).await
    }

    pub(crate) async fn relay_with<P: Publish>(&self, cfg: Config, publisher: P) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let ops = listener.local_addr().expect("bound");
        let relay = Relay::build(cfg, publisher, listener)
            .await
            .expect("a relay");
        let stop = CancellationToken::new();
        Running {
            metrics: relay.metrics().clone(),
            ops,
            task: tokio::spawn(relay.run(stop.clone())),
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

    /// Inserts events with one statement, in their order.
    pub(crate) async fn insert_all(&self, events: &[Event]) {
        for chunk in events.chunks(500) {
            self.insert_all_on(self.pool(), chunk).await;
        }
    }

    async fn insert_all_on<'e>(
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
                .push_bind(self.topics.of_seq(event.seq))
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

    /// How many shards each owner holds.
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

/// One outbox row to be.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) order_id: i64,
    pub(crate) return_id: i64,
    pub(crate) seq: i32,
    pub(crate) event_id: EventId,
    pub(crate) payload: Vec<u8>,
}

impl Event {
    pub(crate) fn new(order_id: i64, return_id: i64, seq: i32) -> Self {
        Self {
            order_id,
            return_id,
            seq,
            event_id: EventId::generate(),
            payload: format!(r#"{{"return_id":{return_id},"order_id":{order_id}}}"#).into_bytes(),
        }
    }
}

/// A relay in this process.
pub(crate) struct Running {
    pub(crate) metrics: Metrics,
    pub(crate) ops: std::net::SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<Result<Drain, RelayError>>,
}

impl Running {
    pub(crate) async fn stop(self) -> Drain {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        ended
            .expect("the relay ends")
            .expect("no panic")
            .expect("no error")
    }
}

/// Asks again until it holds.
pub(crate) async fn until<F, R>(what: &str, mut holds: F)
where
    F: FnMut() -> R,
    R: Future<Output = bool>,
{
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// P4: in each topic the first occurrences of one return's events ascend, and both together hold 1..=n.
pub(crate) fn assert_in_order(seen: &[Seen], last_seqs: &HashMap<i64, i32>) {
    let mut first: HashMap<(i64, &str), Vec<i32>> = HashMap::new();
    for seen in seen {
        let seqs = first.entry((seen.return_id, &seen.topic)).or_default();
        if !seqs.contains(&seen.seq) {
            seqs.push(seen.seq);
        }
    }
    let mut all: HashMap<i64, Vec<i32>> = HashMap::new();
    for ((return_id, topic), seqs) in first {
        assert!(seqs.is_sorted(), "return {return_id} in {topic}: {seqs:?}");
        all.entry(return_id).or_default().extend(seqs);
    }
    for (return_id, last) in last_seqs {
        let mut seqs = all.remove(return_id).unwrap_or_default();
        seqs.sort_unstable();
        assert_eq!(seqs, (1..=*last).collect::<Vec<_>>(), "return {return_id}");
    }
    assert!(all.is_empty(), "unknown returns: {all:?}");
}
