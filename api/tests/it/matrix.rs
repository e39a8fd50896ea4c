//! One table: which callers may use which endpoint, in both formats.

use std::time::Duration;

use serde_json::{Value, json};
use shared::test_support::TestDb;
use shared::test_support::mysql_proxy::MysqlProxy;
use sqlx::AssertSqlSafe;

use crate::harness::{Answer, Api, CUSTOMER, revoke, until};
use crate::tokens::{Format, Issuer, Keys, READ_ONLY, attenuate};

const LONG_AGO: u64 = 1_000_000_000;
const FAR_AHEAD: u64 = 4_000_000_000;

/// The caller, its token, and the statuses of [`ENDPOINTS`]. The return and the orders belong to customer 42.
/// Decisions are sent with an old `ETag`: authorized callers get 412.
type Row = (&'static str, Option<String>, [u16; ENDPOINTS.len()]);

/// The columns of the table; `{}` is the return's id.
const ENDPOINTS: [(&str, &str); 10] = [
    ("POST", "/returns"),
    ("GET", "/returns/{}"),
    ("GET", "/returns"),
    ("GET", "/returns/{}/events"),
    ("GET", "/events"),
    ("POST", "/returns/{}/cancel"),
    ("POST", "/returns/{}/approve"),
    ("POST", "/returns/{}/retry-refund"),
    ("GET", "/orders"),
    ("GET", "/operator-actions"),
];

/// Without a valid token every endpoint returns the same.
const UNAUTHENTICATED: [u16; ENDPOINTS.len()] = [401; ENDPOINTS.len()];

fn rows(keys: &Keys, format: Format, stranger: &Issuer, retired: &Issuer, id: i64) -> Vec<Row> {
    let owner = json!({"user_id": CUSTOMER.0, "role": "customer"});
    let of = |user: i64, role: &str| keys.mint_as(format, json!({"user_id": user, "role": role}));
    let with = |claim: &str, value: Value| {
        let mut claims = owner.clone();
        claims[claim] = value;
        Some(keys.mint_as(format, claims))
    };
    let (not_yet, malformed) = match format {
        Format::Jwt => ("nbf", "a.b.c"),
        Format::Biscuit => ("iat", "hello"),
    };
    let mut rows = vec![
        ("no token", None, UNAUTHENTICATED),
        ("malformed", Some(malformed.to_owned()), UNAUTHENTICATED),
        ("expired", with("exp", json!(LONG_AGO)), UNAUTHENTICATED),
        ("without end", with("exp", Value::Null), UNAUTHENTICATED),
        (
            "not yet valid",
            with(not_yet, json!(FAR_AHEAD)),
            UNAUTHENTICATED,
        ),
        (
            "issued in the future",
            with("iat", json!(FAR_AHEAD)),
            UNAUTHENTICATED,
        ),
        (
            "wrong audience",
            with("aud", json!("else")),
            UNAUTHENTICATED,
        ),
        ("wrong issuer", with("iss", json!("else")), UNAUTHENTICATED),
        ("revoked", with("jti", json!("revoked-1")), UNAUTHENTICATED),
        (
            "unknown key",
            Some(stranger.mint_as(format, owner.clone())),
            UNAUTHENTICATED,
        ),
        (
            "retired key",
            Some(retired.mint_as(format, owner.clone())),
            UNAUTHENTICATED,
        ),
        (
            "customer, owner",
            Some(of(CUSTOMER.0, "customer")),
            [201, 200, 200, 403, 403, 412, 403, 403, 200, 403],
        ),
        (
            "customer, other",
            Some(of(43, "customer")),
            [400, 404, 200, 403, 403, 404, 403, 403, 200, 403],
        ),
        (
            "admin",
            Some(of(7, "admin")),
            [403, 200, 200, 200, 200, 412, 412, 412, 403, 200],
        ),
        (
            "auditor",
            Some(of(8, "auditor")),
            [403, 403, 403, 200, 200, 403, 403, 403, 403, 200],
        ),
        (
            "admin with the owner's number",
            Some(of(CUSTOMER.0, "admin")),
            [403, 200, 200, 200, 200, 412, 403, 403, 403, 200],
        ),
        (
            "auditor with the owner's number",
            Some(of(CUSTOMER.0, "auditor")),
            [403, 403, 403, 200, 200, 403, 403, 403, 403, 200],
        ),
    ];
    if format == Format::Biscuit {
        let narrowed =
            |user: i64, role: &str, datalog: &str| Some(attenuate(&of(user, role), datalog));
        let only =
            |id: i64| format!(r#"check if operation("returns.read"), resource("return", {id})"#);
        rows.extend([
            (
                "read only, owner",
                narrowed(CUSTOMER.0, "customer", READ_ONLY),
                [403, 200, 200, 403, 403, 403, 403, 403, 200, 403],
            ),
            (
                "read only, other",
                narrowed(43, "customer", READ_ONLY),
                [403, 404, 200, 403, 403, 403, 403, 403, 200, 403],
            ),
            (
                "read only, admin",
                narrowed(7, "admin", READ_ONLY),
                [403, 200, 200, 200, 200, 403, 403, 403, 403, 200],
            ),
            (
                "this return, owner",
                narrowed(CUSTOMER.0, "customer", &only(id)),
                [403, 200, 403, 403, 403, 403, 403, 403, 403, 403],
            ),
            (
                "this return, other",
                narrowed(43, "customer", &only(id)),
                [403, 404, 403, 403, 403, 403, 403, 403, 403, 403],
            ),
            (
                "this return, admin",
                narrowed(7, "admin", &only(id)),
                [403, 200, 403, 403, 403, 403, 403, 403, 403, 403],
            ),
            (
                "another return, owner",
                narrowed(CUSTOMER.0, "customer", &only(id + 1)),
                [403; 10],
            ),
            (
                "another return, admin",
                narrowed(7, "admin", &only(id + 1)),
                [403; 10],
            ),
            (
                "this return's events, auditor",
                narrowed(
                    8,
                    "auditor",
                    &format!(r#"check if operation("events.read"), resource("return", {id})"#),
                ),
                [403, 403, 403, 200, 403, 403, 403, 403, 403, 403],
            ),
            (
                "its hour is over",
                narrowed(
                    CUSTOMER.0,
                    "customer",
                    "check if time($now), $now < 2020-01-01T00:00:00Z",
                ),
                [403; 10],
            ),
        ]);
    }
    rows
}

#[tokio::test]
async fn every_endpoint_responds_to_every_credential_as_in_the_table() {
    let db = TestDb::create().await;
    let url = db.url().to_owned();
    let (stranger, retired) = (Issuer::new(9), Issuer::new(2));
    let keys = Keys::generate();
    keys.write(&[&retired]);
    let api = Api::start_with_keys(db, &url, &["--streams-per-caller", "1000"], keys).await;
    api.db.seed_orders(1, 100, CUSTOMER).await;
    let id = api.file(1).await.return_id();
    retire(&api, &retired, id).await;
    revoke(&api.db, "token_id", "revoked-1").await;
    api.until_metric("auth_revoked_tokens 1").await;

    let mut orders = 2..;
    for format in Format::ALL {
        for (who, token, expected) in rows(&api.keys, format, &stranger, &retired, id) {
            let order = orders.next().expect("endless");
            let answers = ask_everything(&api, token.as_deref(), order, id).await;
            let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
            assert_eq!(statuses, expected, "{format:?}, {who}");
            // Callers who may read a return may stream it; all others may not.
            let stream = status_of_stream(&api, token.as_deref(), id).await;
            assert_eq!(stream, expected[1], "{format:?}, {who}, stream");
            for answer in answers {
                check_words(&answer, token.is_some());
            }
        }
    }
    api.stop().await;
}

/// Makes the issuer's tokens invalid: the file no longer has its keys.
async fn retire(api: &Api, retired: &Issuer, id: i64) {
    let owner = json!({"user_id": CUSTOMER.0, "role": "customer"});
    for format in Format::ALL {
        let token = retired.mint_as(format, owner.clone());
        let answer = api.get(&format!("/returns/{id}"), &token).await;
        assert_eq!(answer.status, 200, "{format:?}");
    }
    api.keys.write(&[]);
    api.until_metric(r#"auth_keys{use="sig"} 1"#).await;
    api.until_metric(r#"auth_keys{use="biscuit"} 1"#).await;
}

async fn ask_everything(api: &Api, token: Option<&str>, order: i64, id: i64) -> Vec<Answer> {
    let mut answers = Vec::new();
    for (method, path) in ENDPOINTS {
        let url = api.url(&path.replace("{}", &id.to_string()));
        let mut request = match method {
            "POST" if path == "/returns" => {
                let body = json!({"order_id": order, "reason": "does not fit"});
                api.http.post(url).json(&body)
            }
            "POST" => api.http.post(url).header("if-match", "\"0\""),
            _ => api.http.get(url),
        };
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        answers.push(Answer::read(request.send().await.expect("a response")).await);
    }
    answers
}

/// An open stream does not end, so its body is not read.
async fn status_of_stream(api: &Api, token: Option<&str>, id: i64) -> u16 {
    let request = api.http.get(api.url(&format!("/returns/{id}/stream")));
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    request.send().await.expect("a response").status().as_u16()
}

/// Each status has one type of problem and one challenge for every reason, so they reveal nothing to an attacker.
fn check_words(answer: &Answer, with_token: bool) {
    let (code, challenge) = match (answer.status, with_token) {
        (401, false) => ("unauthenticated", Some(r#"Bearer realm="returns""#)),
        (401, true) => (
            "unauthenticated",
            Some(r#"Bearer realm="returns", error="invalid_token""#),
        ),
        (403, _) => (
            "forbidden",
            Some(r#"Bearer realm="returns", error="insufficient_scope""#),
        ),
        (404, _) => ("not-found", None),
        (400, _) => ("unknown-order", None),
        (412, _) => ("precondition-failed", None),
        _ => return,
    };
    answer.problem(answer.status, code);
    assert_eq!(answer.header("www-authenticate"), challenge);
}

#[tokio::test]
async fn p13_someone_elses_return_and_a_missing_one_look_alike_and_cost_the_same_statements() {
    // One connection, so its statements are those of the requests.
    let api = Api::start_with(&["--database-max-connections", "1"]).await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    let id = api.file(1).await.return_id();
    for (format, part) in Format::ALL
        .into_iter()
        .flat_map(|format| [(format, ""), (format, "/stream")])
    {
        let token = api.token_of(format, 43, "customer");
        let foreign = format!("/returns/{id}{part}");
        // The first request prepares the statement and caches the token.
        api.get(&foreign, &token).await.problem(404, "not-found");
        let one = observed(&api, &foreign, &token).await;
        let none = observed(&api, &format!("/returns/999999{part}"), &token).await;
        assert_eq!(one, none, "{format:?} {part}");
    }
    api.stop().await;
}

/// A problem and the headers.
type Seen = (Value, Vec<String>);

/// The responses without their request ids, and the statements of the connection for three of them.
async fn observed(api: &Api, path: &str, token: &str) -> (Vec<Seen>, Vec<String>) {
    let before = last_event(api).await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        let answer = api.get(path, token).await;
        let mut problem = answer.problem(404, "not-found");
        for id in ["request_id", "trace_id", "span_id"] {
            problem[id] = Value::Null;
        }
        let mut headers: Vec<String> = answer
            .headers
            .iter()
            .filter(|(name, _)| !["x-request-id", "date"].contains(&name.as_str()))
            .map(|(name, value)| format!("{name}: {value:?}"))
            .collect();
        headers.sort();
        answers.push((problem, headers));
    }
    (answers, statements_after(api, before).await)
}

/// The only connection that reads returns. The server keeps its last ten statements, pings included.
const READER: &str = "(SELECT r.thread_id FROM performance_schema.events_statements_history r \
       JOIN performance_schema.threads t ON t.thread_id = r.thread_id \
       WHERE t.processlist_db = DATABASE() AND r.sql_text LIKE '/* get_return */%' LIMIT 1)";

/// Waits for the first, and counts the one in progress: the server records a statement shortly after its response.
async fn last_event(api: &Api) -> i64 {
    let sql = format!(
        "SELECT CAST(MAX(e.event_id) AS SIGNED) FROM ( \
         SELECT thread_id, event_id FROM performance_schema.events_statements_history UNION ALL \
         SELECT thread_id, event_id FROM performance_schema.events_statements_current) e WHERE e.thread_id = {READER}"
    );
    until(
        "the connection is known",
        Duration::from_secs(5),
        || async {
            let query = sqlx::query_scalar(AssertSqlSafe(sql.clone()));
            let event: Option<i64> = query.fetch_one(&api.db.pool).await.expect("an event");
            event
        },
    )
    .await
}

/// Waits for the three reads. How long the connection was idle decides whether it is checked before a read, not the return.
async fn statements_after(api: &Api, event: i64) -> Vec<String> {
    let sql = format!(
        "SELECT CONCAT(h.event_name, ' ', COALESCE(h.sql_text, '')) \
         FROM performance_schema.events_statements_history h WHERE h.thread_id = {READER} \
         AND h.event_id > {event} AND h.end_event_id IS NOT NULL \
         AND COALESCE(h.sql_text, '') <> '{}' ORDER BY h.event_id",
        MysqlProxy::CHECK
    );
    until("three reads are known", Duration::from_secs(5), || async {
        let query = sqlx::query_scalar(AssertSqlSafe(sql.clone()));
        let statements: Vec<String> = query.fetch_all(&api.db.pool).await.expect("statements");
        let is_read = |text: &String| text.contains("/* get_return */");
        if statements.iter().filter(|text| is_read(text)).count() != 3 {
            return None;
        }
        // Statements before the first read and after the last may be recorded at any time.
        let first = statements.iter().position(is_read).expect("three");
        let last = statements.iter().rposition(is_read).expect("three");
        Some(statements[first..=last].to_vec())
    })
    .await
}
