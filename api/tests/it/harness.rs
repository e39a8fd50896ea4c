//! Starts an api on a fresh database and speaks to it.

use std::net::SocketAddr;
use std::time::Duration;

use api::App;
use api::config::Config;
use clap::Parser;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use shared::domain::ids::CustomerId;
use shared::runtime::http_server::Drain;
use shared::runtime::program::{Cli, Settings};
use shared::runtime::tasks::TaskError;
use shared::test_support::TestDb;
pub(crate) use shared::test_support::until;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::tokens::{Format, Keys};

pub(crate) const CUSTOMER: CustomerId = CustomerId(42);

/// After a slow measurement of the outbox the next one is up to two minutes away.
pub(crate) const MEASURED_WITHIN: Duration = Duration::from_secs(150);

/// A running api. Dropping it stops serving; [`Api::stop`] also drains and checks the rows.
pub(crate) struct Api {
    pub(crate) db: TestDb,
    pub(crate) address: SocketAddr,
    pub(crate) ops: SocketAddr,
    pub(crate) http: Client,
    pub(crate) keys: Keys,
    pub(crate) stop: CancellationToken,
    running: JoinHandle<Result<Drain, TaskError>>,
}

impl Api {
    pub(crate) async fn start() -> Self {
        let db = TestDb::create().await;
        let url = db.url().to_owned();
        Self::start_on(db, &url, &[]).await
    }

    /// With further settings, as flags.
    pub(crate) async fn start_with(flags: &[&str]) -> Self {
        let db = TestDb::create().await;
        let url = db.url().to_owned();
        Self::start_on(db, &url, flags).await
    }

    /// `url` is how the api reaches `db`: a proxy may stand between.
    pub(crate) async fn start_on(db: TestDb, url: &str, flags: &[&str]) -> Self {
        Self::start_with_keys(db, url, flags, Keys::generate()).await
    }

    pub(crate) async fn start_with_keys(db: TestDb, url: &str, flags: &[&str], keys: Keys) -> Self {
        let running = spawn(url, &keys, flags).await;
        Self {
            db,
            address: running.address,
            ops: running.ops,
            http: Client::new(),
            keys,
            stop: running.stop,
            running: running.task,
        }
    }

    /// The value of a metric without labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let (_, metrics) = self.ops("/metrics").await;
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.expect("the metric").parse().expect("a number")
    }

    /// A second api on the same database with the same keys.
    pub(crate) async fn start_another(&self) -> Process {
        self.start_another_with(&[]).await
    }

    pub(crate) async fn start_another_with(&self, flags: &[&str]) -> Process {
        spawn(self.db.url(), &self.keys, flags).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn customer_token(&self) -> String {
        self.token_of(Format::Jwt, CUSTOMER.0, "customer")
    }

    pub(crate) fn token_of(&self, format: Format, user: i64, role: &str) -> String {
        self.keys
            .mint_as(format, json!({"user_id": user, "role": role}))
    }

    pub(crate) fn admin_token(&self) -> String {
        self.keys.mint(json!({"user_id": 7, "role": "admin"}))
    }

    /// `POST /returns` as the usual customer.
    pub(crate) async fn file(&self, order: i64) -> Answer {
        self.file_with(order, None).await
    }

    pub(crate) async fn file_with(&self, order: i64, key: Option<&str>) -> Answer {
        post_return(
            &self.http,
            self.address,
            &self.customer_token(),
            &json!({"order_id": order, "reason": "does not fit"}),
            key,
        )
        .await
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Answer {
        let request = self.http.get(self.url(path)).bearer_auth(token);
        Answer::read(request.send().await.expect("an answer")).await
    }

    /// `GET` on the operator's port.
    pub(crate) async fn ops(&self, path: &str) -> (u16, String) {
        get_text(&self.http, self.ops, path).await
    }

    /// Waits until `/metrics` has this line.
    pub(crate) async fn until_metric(&self, line: &str) {
        self.until_shown(line, Duration::from_secs(15)).await;
    }

    /// As [`Api::until_metric`], for a metric of the outbox.
    pub(crate) async fn until_measured(&self, line: &str) {
        self.until_shown(line, MEASURED_WITHIN).await;
    }

    async fn until_shown(&self, line: &str, deadline: Duration) {
        until(line, deadline, async || {
            let (_, metrics) = self.ops("/metrics").await;
            metrics.lines().any(|shown| shown == line)
        })
        .await;
    }

    /// Drains, then checks what must hold after every test: a return has its events and its outbox rows, with the
    /// same event ids and without a gap, and no transaction is left open.
    pub(crate) async fn stop(self) {
        self.stop_and_keep_db().await;
    }

    pub(crate) async fn stop_and_keep_db(self) -> (TestDb, Drain) {
        let (db, drain) = self.drain().await;
        check_rows(&db).await;
        (db, drain)
    }

    /// Drains and checks no rows, for a test that times the drain.
    pub(crate) async fn drain(self) -> (TestDb, Drain) {
        self.stop.cancel();
        let drain = self
            .running
            .await
            .expect("the api does not panic")
            .expect("a clean end");
        (self.db, drain)
    }
}

/// A running api without a database of its own.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    ops: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<Result<Drain, TaskError>>,
}

impl Process {
    /// `GET` on the operator's port.
    pub(crate) async fn ops(&self, path: &str) -> (u16, String) {
        get_text(&Client::new(), self.ops, path).await
    }
}

async fn get_text(http: &Client, address: SocketAddr, path: &str) -> (u16, String) {
    let request = http.get(format!("http://{address}{path}"));
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    (status, response.text().await.expect("text"))
}

async fn spawn(url: &str, keys: &Keys, flags: &[&str]) -> Process {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let ops_listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let (address, ops) = (
        listener.local_addr().expect("bound"),
        ops_listener.local_addr().expect("bound"),
    );
    let key_file = keys.path();
    let key_file = key_file.to_str().expect("a UTF-8 path");
    let mut args = vec![
        "returns-api",
        "--database-url",
        url,
        "--auth-keys-file",
        key_file,
    ];
    // One address and few callers ask here, as fast as they can.
    for limit in ["--rate-per-address", "--rate-per-caller"] {
        if !flags.contains(&limit) {
            args.extend([limit, "0"]);
        }
    }
    args.extend(flags);
    let cfg = Cli::<Config>::parse_from(args).settings;
    assert_eq!(cfg.problems(), [""; 0]);
    let app = App::build(cfg, listener).await.expect("build");
    let stop = CancellationToken::new();
    let task = tokio::spawn(app.run(ops_listener, stop.clone()));
    Process {
        address,
        ops,
        stop,
        task,
    }
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) async fn read(response: Response) -> Self {
        Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await.expect("a body").to_vec(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("not JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn return_id(&self) -> i64 {
        assert_eq!(self.status, 201, "{}", String::from_utf8_lossy(&self.body));
        self.json()["return_id"].as_i64().expect("an id")
    }

    /// Checks a problem document and answers it.
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{body}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{body}"
        );
        let problem = self.json();
        assert_eq!(problem["type"], format!("/problems/{code}"), "{body}");
        assert_eq!(
            (&problem["code"], &problem["status"]),
            (&json!(code), &json!(status)),
            "{body}"
        );
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"));
        assert_eq!(
            self.header("retry-after").is_some(),
            matches!(status, 429 | 503),
            "{body}"
        );
        problem
    }
}

pub(crate) async fn post_return(
    http: &Client,
    address: SocketAddr,
    token: &str,
    body: &Value,
    key: Option<&str>,
) -> Answer {
    let mut request = http
        .post(format!("http://{address}/returns"))
        .bearer_auth(token)
        .json(body);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    Answer::read(request.send().await.expect("an answer")).await
}

/// Sends the request again while no permit for the database is free: a 503 of a busy machine proves nothing.
pub(crate) async fn with_permit<F: Future<Output = Answer>>(ask: impl Fn() -> F) -> Answer {
    until("a permit", Duration::from_secs(60), || async {
        let answer = ask().await;
        if answer.status != 503 {
            return Some(answer);
        }
        answer.problem(503, "unavailable");
        None
    })
    .await
}

/// The pause between two checks of a condition. Busy waiting would take CPU from the code under test.
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// A database with the usual customer's orders 1 and 2, and the id of a return of the first. It was filed with the
/// usual deadlines: those of an api under test may be too short for it.
pub(crate) async fn db_with_a_return() -> (TestDb, i64) {
    let api = Api::start().await;
    api.db.seed_orders(1, 2, CUSTOMER).await;
    let id = api.file(1).await.return_id();
    let (db, _) = api.stop_and_keep_db().await;
    (db, id)
}

pub(crate) async fn count(db: &TestDb, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql)
        .fetch_one(&db.pool)
        .await
        .expect(sql)
}

/// Revokes the tokens with this id, for ever.
pub(crate) async fn revoke(db: &TestDb, kind: &str, token: &str) {
    sqlx::query(
        "INSERT INTO revoked_tokens (kind, token, revoked_at, expires_at, revoked_by, reason) \
         VALUES (?, ?, UTC_TIMESTAMP(6), NULL, 'test', 'a test')",
    )
    .bind(kind)
    .bind(token)
    .execute(&db.pool)
    .await
    .expect("revoke");
}

/// Returns, events and outbox agree, and nothing is left open.
pub(crate) async fn check_rows(db: &TestDb) {
    let orphans = count(
        db,
        "SELECT COUNT(*) FROM (SELECT r.id FROM returns r \
         LEFT JOIN return_events e ON e.return_id = r.id AND e.seq BETWEEN 1 AND r.version \
         LEFT JOIN outbox o ON o.event_id = e.event_id AND o.aggregate_id = r.id AND o.seq = e.seq \
         GROUP BY r.id, r.version HAVING COUNT(e.id) <> r.version OR COUNT(o.id) <> r.version) AS broken",
    )
    .await;
    assert_eq!(
        orphans, 0,
        "P1, P7: a return without one of its events or outbox rows"
    );
    let phantoms = count(
        db,
        "SELECT COUNT(*) FROM outbox o LEFT JOIN return_events e ON e.event_id = o.event_id \
         AND e.return_id = o.aggregate_id AND e.seq = o.seq WHERE e.id IS NULL",
    )
    .await;
    assert_eq!(phantoms, 0, "P2: an outbox row without its event");
    nothing_open(db).await;
}

/// No transaction of this database is open. (`innodb_trx` is not reliable here: it is a cache that is not
/// refreshed while it is read more often than every 0.1 s, and parallel tests read it that often.)
pub(crate) async fn nothing_open(db: &TestDb) {
    let open = "SELECT COUNT(*) FROM performance_schema.events_transactions_current t \
                JOIN performance_schema.threads h ON h.thread_id = t.thread_id \
                WHERE t.state = 'ACTIVE' AND h.processlist_db = DATABASE() AND h.processlist_id <> CONNECTION_ID()";
    until("no transaction is open", Duration::from_secs(5), || async {
        (count(db, open).await == 0).then_some(())
    })
    .await;
}
