//! Returns in every state that a person may see, tokens, and the rows that a decision writes.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Map, Value, json};
use shared::domain::actor::Actor;
use shared::domain::event::TopicArgs;
use shared::domain::ids::{CustomerId, OrderId, ReturnId};
use shared::domain::money::{Currency, Money};
use shared::domain::status::Action;
use shared::domain::trace_context::TraceContext;
use shared::domain::transition::{self, Cause, Change, NewReturn};
use shared::test_support::{TestDb, audit_trail};
use sqlx::mysql::MySqlConnection;
use sqlx::{FromRow, Row};
use tempfile::TempDir;

use crate::harness::{Ran, expect_code, returnsctl, run};

pub(super) const CUSTOMER: CustomerId = CustomerId(42);
pub(super) const ADA: &str = "7";
pub(super) const BOB: &str = "8";
/// The key set, in the fixture's folder.
const KEYS: &str = "keys.json";

/// A database with returns, and the keys of the admins' tokens.
pub(crate) struct Fixture {
    pub(crate) db: TestDb,
    /// The database address for deciding commands; a proxy may be in between.
    pub(super) url: String,
    folder: TempDir,
}

/// A row of `refunds`, as far as persons change it.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(super) struct Attempt {
    pub(super) attempt: i32,
    pub(super) state: String,
    pub(super) idempotency_key: String,
    pub(super) amount: rust_decimal::Decimal,
    pub(super) owner: Option<Vec<u8>>,
    pub(super) first_sent_at: Option<time::PrimitiveDateTime>,
    pub(super) gateway: Option<String>,
    pub(super) gateway_ref: Option<String>,
    pub(super) last_error: Option<String>,
}

#[derive(Debug, FromRow)]
pub(super) struct Record {
    pub(super) id: i64,
    pub(super) actor_type: String,
    pub(super) actor_id: String,
    pub(super) verb: String,
    pub(super) return_id: Option<i64>,
    pub(super) reason: String,
    pub(super) details: String,
    pub(super) db_account: Option<String>,
}

impl Record {
    pub(super) fn details(&self) -> Value {
        serde_json::from_str(&self.details).expect("JSON")
    }
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let db = TestDb::create().await;
        Self {
            url: db.url().to_owned(),
            db,
            folder: TempDir::new().expect("a folder"),
        }
    }

    pub(super) fn key(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn token(&self, user: &str, role: &str) -> String {
        self.token_of("jwt", user, role)
    }

    /// A token in this format.
    pub(super) fn token_of(&self, format: &str, user: &str, role: &str) -> String {
        let paths = ["jwt.pem", "biscuit.pem", KEYS].map(|name| self.key(name));
        let [jwt, biscuit, keys] = paths.each_ref().map(|path| path.to_str().expect("UTF-8"));
        let files = [
            ("JWT_PRIVATE_KEY_FILE", jwt),
            ("BISCUIT_PRIVATE_KEY_FILE", biscuit),
            ("AUTH_KEYS_FILE", keys),
        ];
        let args = [
            "token", "mint", "--format", format, "--user", user, "--role", role,
        ];
        expect_code(0, &args, &files).stdout.trim().to_owned()
    }

    /// An admin's Biscuit that only reads.
    pub(super) fn narrowed(&self, user: &str) -> String {
        let file = self.key("token");
        std::fs::write(&file, self.token_of("biscuit", user, "admin")).expect("write");
        let file = file.to_str().expect("UTF-8");
        let args = ["token", "attenuate", "--read-only", "--token-file", file];
        expect_code(0, &args, &[]).stdout.trim().to_owned()
    }

    /// A token of an admin with these claims too.
    pub(super) fn signed(&self, more: &Value) -> String {
        let pem = std::fs::read(self.key("jwt.pem")).expect("the private half");
        let mut claims = json!({"role": "admin", "iss": "returns-dev", "aud": "returns-api"});
        for (name, value) in more.as_object().expect("claims") {
            claims[name] = value.clone();
        }
        let key = EncodingKey::from_ed_pem(&pem).expect("a private key");
        encode(&Header::new(Algorithm::EdDSA), &claims, &key).expect("signs")
    }

    /// The only key of the set.
    pub(super) fn jwk(&self) -> Value {
        let set = std::fs::read(self.key(KEYS)).expect("the key set");
        let set: Value = serde_json::from_slice(&set).expect("JSON");
        assert_eq!(set["keys"].as_array().map(Vec::len), Some(1), "{set}");
        set["keys"][0].clone()
    }

    /// Requests to mark attempt 1 as paid.
    #[track_caller]
    pub(super) fn request(&self, code: i32, user: &str, id: ReturnId) -> Ran {
        self.act(code, user, &mark_paid(&id.to_string(), "1", &[]))
    }

    /// Needs no token, because it changes nothing.
    pub(super) fn query(&self, code: i32, args: &[&str]) -> Ran {
        let args = [&["refunds"], args].concat();
        expect_code(code, &args, &[("DATABASE_URL", self.db.url())])
    }

    pub(super) fn show(&self, id: ReturnId) -> Value {
        self.query(0, &["show", &id.to_string(), "--json"]).json()
    }

    /// The commands that `show` says may be used.
    pub(super) fn possible(&self, id: ReturnId) -> Vec<String> {
        let shown = self.show(id);
        let commands = shown["commands"].as_array().expect("a list");
        let possible = commands.iter().filter(|one| one["possible"] == true);
        possible
            .map(|one| one["command"].as_str().expect("a name").to_owned())
            .collect()
    }

    /// Runs a command as the admin with this number.
    #[track_caller]
    pub(crate) fn act(&self, code: i32, user: &str, args: &[&str]) -> Ran {
        self.act_with(code, &self.token(user, "admin"), args)
    }

    #[track_caller]
    pub(super) fn act_with(&self, code: i32, token: &str, args: &[&str]) -> Ran {
        let ran = run(
            &[&["refunds"], args, &["--json"]].concat(),
            &self.variables(token, &self.key(KEYS).display().to_string()),
        );
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(!format!("{ran:?}").contains(token), "P13: {ran:?}");
        ran
    }

    pub(super) fn spawn(&self, user: &str, args: &[&str]) -> Child {
        let (token, key) = (self.token(user, "admin"), self.key(KEYS));
        returnsctl(
            &[&["refunds"], args, &["--json"]].concat(),
            &self.variables(&token, &key.display().to_string()),
        )
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the built program runs")
    }

    fn variables<'a>(&'a self, token: &'a str, key: &'a str) -> [(&'a str, &'a str); 3] {
        [
            ("DATABASE_URL", &self.url),
            ("AUTH_KEYS_FILE", key),
            ("OPERATOR_TOKEN", token),
        ]
    }

    /// A return of this order, 49.90 EUR of 49.90 EUR.
    pub(crate) async fn file(&self, order: i64) -> ReturnId {
        self.file_in(order, &TraceContext::new_root()).await
    }

    /// The same in this trace.
    pub(crate) async fn file_in(&self, order: i64, trace: &TraceContext) -> ReturnId {
        self.db.seed_orders(order, 1, CUSTOMER).await;
        let new = NewReturn {
            order_id: OrderId(order),
            customer_id: CUSTOMER,
            filed_by: None,
            reason: "too small".to_owned(),
            reason_code: None,
            review_required: false,
            refund_amount: Money::new(
                "49.90".parse().expect("a decimal"),
                Currency::parse("EUR").expect("a code"),
            ),
            cause: Cause {
                actor: Actor::customer(CUSTOMER),
                request_id: None,
                trace: trace.clone(),
            },
        };
        let mut tx = self.db.pool.begin().await.expect("begin");
        let now = sqlx::query_scalar("SELECT UTC_TIMESTAMP(6)")
            .fetch_one(&mut *tx)
            .await
            .expect("the clock");
        let opened = transition::open(&mut tx, now, &[new]).await.expect("open");
        let filed = opened.announce(&mut tx, &topics()).await.expect("announce");
        tx.commit().await.expect("commit");
        filed[0].return_id
    }

    /// Refund pending, its first attempt parked.
    pub(crate) async fn parked(&self, order: i64) -> ReturnId {
        let id = self.file(order).await;
        self.attempt(id, 1, "parked").await;
        self.advance(id, &[Action::Approve, Action::Claim, Action::Park])
            .await;
        id
    }

    /// Refund failed, its first attempt declined.
    pub(crate) async fn failed(&self, order: i64) -> ReturnId {
        let id = self.file(order).await;
        self.attempt(id, 1, "declined").await;
        self.advance(id, &[Action::Approve, Action::Claim, Action::Decline])
            .await;
        id
    }

    /// As the consumer writes it.
    pub(crate) async fn advance(&self, id: ReturnId, actions: &[Action]) {
        self.advance_in(id, actions, &TraceContext::new_root())
            .await;
    }

    /// The same in this trace.
    pub(crate) async fn advance_in(&self, id: ReturnId, actions: &[Action], trace: &TraceContext) {
        let mut tx = self.db.pool.begin().await.expect("begin");
        advance(&mut tx, id, actions, trace).await;
        tx.commit().await.expect("commit");
    }

    pub(crate) async fn attempt(&self, id: ReturnId, number: i32, state: &str) {
        sqlx::query(
            "INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, first_sent_at, \
             next_check_at, checks, gateway, last_error, created_at, updated_at) VALUES (?, ?, ?, 49.90, 'EUR', ?, \
             UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), 3, 'simulated', 'not_found', \
             UTC_TIMESTAMP(6) - INTERVAL 1 HOUR, UTC_TIMESTAMP(6))",
        )
        .bind(id)
        .bind(number)
        .bind(format!("key-{id}-{number}"))
        .bind(state)
        .execute(&self.db.pool)
        .await
        .expect("insert");
    }

    pub(crate) async fn execute(&self, sql: &'static str, id: i64) {
        let query = sqlx::query(sql).bind(id);
        query.execute(&self.db.pool).await.expect(sql);
    }

    pub(super) async fn attempts(&self, id: ReturnId) -> Vec<Attempt> {
        sqlx::query_as(
            "SELECT attempt, state, idempotency_key, amount, owner, first_sent_at, gateway, gateway_ref, last_error \
             FROM refunds WHERE return_id = ? ORDER BY attempt",
        )
        .bind(id)
        .fetch_all(&self.db.pool)
        .await
        .expect("attempts")
    }

    pub(super) async fn states(&self, id: ReturnId) -> Vec<String> {
        let attempts = self.attempts(id).await;
        attempts.into_iter().map(|attempt| attempt.state).collect()
    }

    pub(super) async fn records(&self) -> Vec<Record> {
        sqlx::query_as(
            "SELECT id, actor_type, actor_id, verb, return_id, reason, CAST(details AS CHAR) AS details, \
             db_account FROM operator_actions ORDER BY id",
        )
        .fetch_all(&self.db.pool)
        .await
        .expect("records")
    }

    /// What was refunded of the order by its returns.
    pub(super) async fn refunded_amount(&self, order: i64) -> String {
        let sum = "SELECT COALESCE(SUM(refund_amount), 0) FROM returns WHERE order_id = ? AND status = 'refunded'";
        let amount: rust_decimal::Decimal = sqlx::query_scalar(sum)
            .bind(order)
            .fetch_one(&self.db.pool)
            .await
            .expect("a sum");
        amount.normalize().to_string()
    }

    /// Everything a command could have changed, to compare before and after.
    pub(super) async fn everything(&self, id: ReturnId) -> (i32, Vec<Attempt>, usize) {
        let version: i32 = sqlx::query_scalar("SELECT version FROM returns WHERE id = ?")
            .bind(id)
            .fetch_one(&self.db.pool)
            .await
            .expect("the return");
        (version, self.attempts(id).await, self.records().await.len())
    }

    /// Checks the whole audit trail of a return (P7): no gap, each row hashed over the one before, an outbox row for
    /// each, and the return's row as its last event says. Returns the last event's type, actor and data.
    pub(super) async fn audited(&self, id: ReturnId) -> (String, String, Value) {
        let rows = audit_trail::read_verified(&self.db.pool, Some(id)).await;
        let mut rows = rows.unwrap_or_else(|broken| panic!("{broken}"));
        let announced: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM return_events AS e JOIN outbox AS o ON o.event_id = e.event_id \
             AND o.seq = e.seq AND o.aggregate_id = e.return_id WHERE e.return_id = ?",
        )
        .bind(id)
        .fetch_one(&self.db.pool)
        .await
        .expect("the outbox");
        assert_eq!(usize::try_from(announced), Ok(rows.len()), "P3: {rows:?}");
        let last = rows.pop().expect("a first event");
        let data: Value = serde_json::from_str(&last.event_data).expect("JSON");
        let row = sqlx::query("SELECT status, version FROM returns WHERE id = ?")
            .bind(id)
            .fetch_one(&self.db.pool)
            .await
            .expect("the return");
        assert_eq!(row.get::<i32, _>("version"), last.seq);
        assert_eq!(row.get::<String, _>("status"), data["to"]);
        let actor = format!("{}:{}", last.actor.kind.as_str(), last.actor.id);
        (last.event_type, actor, data)
    }
}

/// The arguments that request to mark this attempt as paid.
pub(super) fn mark_paid<'a>(id: &'a str, attempt: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let args = ["request-mark-paid", id, "--attempt", attempt];
    let evidence = ["--evidence", "line 14"];
    [&args[..], &evidence, more].concat()
}

pub(super) fn topics() -> TopicArgs {
    TopicArgs {
        topic_returns: "order.returns".to_owned(),
        topic_status: "order.returns.status".to_owned(),
    }
}

pub(super) async fn advance(
    tx: &mut MySqlConnection,
    id: ReturnId,
    actions: &[Action],
    trace: &TraceContext,
) {
    let mut locked = transition::lock(tx, &[id]).await.expect("lock");
    let change = |action: &Action| Change {
        return_id: id,
        action: *action,
        cause: Cause {
            actor: Actor::system("refund-consumer"),
            request_id: None,
            trace: trace.clone(),
        },
        detail: Map::new(),
    };
    let changes: Vec<Change> = actions.iter().map(change).collect();
    transition::apply(tx, &mut locked, &topics(), &changes)
        .await
        .expect("apply");
}

pub(super) fn ended(child: Child) -> Ran {
    child.wait_with_output().expect("it ends").into()
}

/// Runs a command for several users at once; returns the exit codes, ascending.
pub(super) fn concurrently<const N: usize>(
    fixture: &Fixture,
    users: [&str; N],
    args: &[&str],
) -> [i32; N] {
    // All are started before the first one is awaited.
    let mut codes = users
        .map(|user| fixture.spawn(user, args))
        .map(|child| ended(child).code);
    codes.sort_unstable();
    codes
}
