//! Exports of the audit trail: their contents, their end, and the resources they use.

use futures_util::StreamExt;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::domain::actor::Actor;
use shared::domain::audit::AuditRow;
use shared::domain::ids::{EventId, ReturnId};
use shared::test_support::TestDb;
use shared::test_support::mysql_proxy::{Cut, MysqlProxy};
use sqlx::AssertSqlSafe;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::audit_rows::{LONG_AGO, append, insert};
use crate::events::{api_with_returns, auditor};
use crate::harness::{Answer, Api, CUSTOMER, nothing_open, revoke, until};
use crate::tokens::Format;

const NDJSON: &str = "application/x-ndjson";
const CSV: &str = "text/csv";

fn ask(api: &Api, path: &str, accept: &str) -> RequestBuilder {
    api.http
        .get(api.url(path))
        .bearer_auth(auditor(api))
        .header("accept", accept)
}

async fn export(api: &Api, path: &str, accept: &str) -> String {
    let answer = Answer::read(ask(api, path, accept).send().await.expect("a response")).await;
    let body = String::from_utf8(answer.body).expect("UTF-8");
    assert_eq!(answer.status, 200, "{body}");
    body
}

/// Checks the manifest of an NDJSON export; returns its lines and its end time.
fn checked(body: &str) -> (Vec<Value>, OffsetDateTime) {
    let (lines, last) = body
        .strip_suffix('\n')
        .map(|body| body.split_at(body.rfind('\n').map_or(0, |at| at + 1)))
        .expect("whole lines");
    let items: Vec<Value> = lines.lines().map(parsed).collect();
    let last = parsed(last);
    let manifest = &last["_manifest"];
    assert_eq!(manifest["count"], items.len());
    assert_eq!(manifest["sha256"], hex::encode(Sha256::digest(lines)));
    let before = manifest["created_before"].as_str().expect("a time");
    let before = OffsetDateTime::parse(before, &Rfc3339).expect("a time");
    (items, before)
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).expect("JSON")
}

/// The rows of the table, column by column.
async fn table(db: &TestDb, condition: &str) -> Vec<Value> {
    let sql = format!(
        "SELECT CAST(JSON_OBJECT('return_id', return_id, 'seq', seq, 'event_id', BIN_TO_UUID(event_id), \
         'event_type', event_type, 'actor', JSON_OBJECT('type', actor_type, 'id', actor_id), \
         'request_id', request_id, 'trace_id', trace_id, \
         'created_at', DATE_FORMAT(created_at, '%Y-%m-%dT%H:%i:%s.%fZ'), 'event_data', event_data, \
         'prev_hash', prev_hash, 'hash', hash) AS CHAR) \
         FROM return_events WHERE {condition}"
    );
    let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_all(&db.pool)
        .await
        .expect("rows");
    rows.iter().map(|row| parsed(row)).collect()
}

/// The hash, computed from a line alone.
fn rehashed(line: &Value) -> String {
    let text = |name: &str| line[name].as_str().map(str::to_owned);
    let must = |name: &str| text(name).expect("text");
    let actor = &line["actor"];
    AuditRow {
        return_id: ReturnId(line["return_id"].as_i64().expect("a number")),
        seq: i32::try_from(line["seq"].as_i64().expect("a number")).expect("small"),
        event_id: EventId(must("event_id").parse().expect("a UUID")),
        event_type: must("event_type"),
        event_data: must("event_data"),
        actor: Actor {
            kind: actor["type"]
                .as_str()
                .expect("text")
                .parse()
                .expect("a type"),
            id: actor["id"].as_str().expect("text").to_owned(),
        },
        request_id: text("request_id"),
        trace_id: text("trace_id"),
        created_at: OffsetDateTime::parse(&must("created_at"), &Rfc3339).expect("a time"),
        prev_hash: must("prev_hash"),
    }
    .hash()
}

#[tokio::test]
async fn p7_an_export_equals_the_table_and_its_hashes_recompute() {
    let (api, ids) = api_with_returns(2, &[]).await;
    // Exactly two chunks, and texts that change when JSON is written again.
    append(&api.db, ids[0], 999, |n, mut row| {
        row.event_data = format!("{{\"n\": {n}.10, \"text\":\"\\u00e4 ä \\ud83d\\ude00\\/\"}}\t");
        row.request_id = (n % 2 == 0).then(|| format!("req-{n}"));
        row
    })
    .await;
    append(&api.db, ids[1], 300, |_, row| row).await;
    let one = format!("/returns/{}/events", ids[0]);
    for (path, condition) in [
        ("/events", "TRUE ORDER BY created_at, id".to_owned()),
        // In the order of its chain, even if the clock went back.
        (&one, format!("return_id = {} ORDER BY seq", ids[0])),
        (
            "/events?actor_id=42",
            "actor_id = '42' ORDER BY created_at, id".to_owned(),
        ),
        ("/events?event_type=refund.found_paid", "FALSE".to_owned()),
    ] {
        let (lines, _) = checked(&export(&api, path, NDJSON).await);
        assert!(lines == table(&api.db, &condition).await, "{path}");
        for line in lines {
            assert_eq!(line["hash"], rehashed(&line), "{line}");
        }
    }
    api.stop().await;
}

#[tokio::test]
async fn csv_has_the_same_events_and_no_cell_that_a_spreadsheet_executes() {
    let (api, ids) = api_with_returns(1, &[]).await;
    // As older versions stored them.
    let evil = [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "x;=WEBSERVICE(A1);",
        "a\t+1",
    ];
    let safe = |text: &str| match text {
        "x;=WEBSERVICE(A1);" => "x;'=WEBSERVICE(A1);".to_owned(),
        "a\t+1" => "a\t'+1".to_owned(),
        armed if evil.contains(&armed) => format!("'{armed}"),
        harmless => harmless.to_owned(),
    };
    append(&api.db, ids[0], 600, |n, mut row| {
        let at = usize::try_from(n).expect("small") % evil.len();
        row.request_id = Some(evil[at].to_owned());
        row.event_data = format!("{{\"say\":\"\\\"{n}\\\",\r\n\"}}");
        row
    })
    .await;
    let body = export(&api, "/events", CSV).await;
    assert!(body.ends_with("\r\n"), "RFC 4180");
    let mut reader = csv::Reader::from_reader(body.as_bytes());
    let mut records = reader.deserialize::<std::collections::HashMap<String, String>>();
    for row in table(&api.db, "TRUE ORDER BY created_at, id").await {
        let record = records.next().expect("a record").expect("CSV");
        for (name, cell) in &record {
            let value = match name.as_str() {
                "actor_type" => &row["actor"]["type"],
                "actor_id" => &row["actor"]["id"],
                name => &row[name],
            };
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                number => number.to_string(),
            };
            assert_eq!(cell, &safe(&text), "{name}");
        }
        assert_eq!(record.len(), 12);
    }
    assert!(records.next().is_none());
    api.stop().await;
}

#[tokio::test]
async fn the_form_follows_the_accept_header() {
    let (api, ids) = api_with_returns(1, &[]).await;
    let one = format!("/returns/{}/events", ids[0]);
    for path in ["/events", &one] {
        for (accept, content_type, file) in [
            (NDJSON, NDJSON, Some("return-events.ndjson")),
            (
                CSV,
                "text/csv; charset=utf-8; header=present",
                Some("return-events.csv"),
            ),
            ("text/html, */*;q=0.1", "application/json", None),
        ] {
            let response = ask(&api, path, accept).send().await.expect("a response");
            let answer = Answer::read(response).await;
            assert_eq!(answer.header("content-type"), Some(content_type));
            assert_eq!(answer.header("vary"), Some("accept"));
            let file = file.map(|file| format!("attachment; filename=\"{file}\""));
            assert_eq!(answer.header("content-disposition"), file.as_deref());
        }
        let html = ask(&api, path, "text/html")
            .send()
            .await
            .expect("a response");
        Answer::read(html).await.problem(406, "not-acceptable");
        let paged = ask(&api, &format!("{path}?limit=5&cursor=1"), NDJSON);
        let paged = Answer::read(paged.send().await.expect("a response")).await;
        let problem = paged.problem(422, "invalid-fields");
        assert_eq!(problem["errors"][0]["parameter"], "limit");
        // The rest of one return's events may be exported, to continue an export that was cut.
        let second = (path == "/events").then_some("cursor");
        assert_eq!(problem["errors"][1]["parameter"].as_str(), second);
    }
    let unknown = ask(&api, "/returns/999999/events", CSV);
    Answer::read(unknown.send().await.expect("a response"))
        .await
        .problem(404, "not-found");
    api.stop().await;
}

/// Some 30 MB: more than the socket buffers between client and server.
async fn append_much(db: &TestDb, id: i64) {
    append(db, id, 7_000, |_, mut row| {
        row.event_data = format!("{{\"pad\":\"{}\"}}", "x".repeat(4_000));
        row
    })
    .await;
}

async fn begun(api: &Api, accept: &str) -> Response {
    let response = ask(api, "/events", accept).send().await.expect("headers");
    assert_eq!(response.status(), 200);
    response
}

#[tokio::test]
async fn a_slow_export_holds_no_connection_and_a_cancelled_one_leaves_nothing_open() {
    // One connection: an export that kept it would block all other requests.
    let (api, ids) = api_with_returns(1, &["--database-max-connections", "1"]).await;
    append_much(&api.db, ids[0]).await;
    let path = format!("/returns/{}", ids[0]);
    let mut slow = begun(&api, NDJSON).await.bytes_stream();
    slow.next().await.expect("a part").expect("a part");
    nothing_open(&api.db).await;
    assert_eq!(api.get(&path, &api.admin_token()).await.status, 200);
    drop(slow);
    nothing_open(&api.db).await;
    assert_eq!(api.get(&path, &api.admin_token()).await.status, 200);
    api.stop().await;
}

#[tokio::test]
async fn an_interrupted_export_is_cut_and_has_no_manifest() {
    for accept in [NDJSON, CSV] {
        let db = TestDb::create().await;
        let (proxy, url) = MysqlProxy::before(db.url()).await;
        let api = Api::start_on(db, &url, &[]).await;
        api.db.seed_orders(1, 1, CUSTOMER).await;
        let id = api.file(1).await.return_id();
        append(&api.db, id, 1_200, |_, row| row).await;
        // In every chunk except the first.
        proxy.arm("OR e.id >", Cut::BeforeAnswer);
        let mut stream = begun(&api, accept).await.bytes_stream();
        let (mut body, mut cut) = (Vec::new(), false);
        while let Some(part) = stream.next().await {
            match part {
                Ok(part) => body.extend_from_slice(&part),
                Err(_) => cut = true,
            }
        }
        assert!(proxy.sprung());
        let body = String::from_utf8(body).expect("UTF-8");
        assert!(cut, "{accept}: it looks whole: {body}");
        assert!(!body.contains("_manifest"), "{accept}: {body}");
        api.stop().await;
    }
}

#[tokio::test]
async fn a_database_that_is_away_at_the_start_is_a_503() {
    let db = TestDb::create().await;
    let (proxy, url) = MysqlProxy::before(db.url()).await;
    let api = Api::start_on(db, &url, &[]).await;
    proxy.arm("/* list_events */", Cut::BeforeAnswer);
    let answer = ask(&api, "/events", NDJSON)
        .send()
        .await
        .expect("a response");
    Answer::read(answer).await.problem(503, "unavailable");
    api.stop().await;
}

#[tokio::test]
async fn an_event_that_is_committed_late_is_in_the_next_export() {
    let (api, ids) = api_with_returns(1, &[]).await;
    append(&api.db, ids[0], 3, |_, row| row).await;
    let (lines, _) = checked(&export(&api, "/events", NDJSON).await);
    let last = lines
        .iter()
        .map(|line| &line["seq"])
        .max_by_key(|seq| seq.as_i64());
    assert_eq!((lines.len(), last), (4, Some(&json!(4))));

    let mut tx = api.db.pool.begin().await.expect("begin");
    let now: OffsetDateTime = sqlx::query_scalar("SELECT UTC_TIMESTAMP(6)")
        .fetch_one(&mut *tx)
        .await
        .expect("now");
    let late = AuditRow {
        return_id: ReturnId(ids[0]),
        seq: 5,
        event_id: EventId::generate(),
        event_type: "return.approved".to_owned(),
        event_data: "{}".to_owned(),
        actor: Actor::policy(),
        request_id: None,
        trace_id: None,
        created_at: now,
        prev_hash: "0".repeat(64),
    };
    insert(&mut tx, &[late]).await;
    let (without, before) = checked(&export(&api, "/events", NDJSON).await);
    assert_eq!(without, lines);
    assert!(now < before, "it is dated before the export's end");
    tx.commit().await.expect("commit");
    let (with, _) = checked(&export(&api, "/events", NDJSON).await);
    assert_eq!(with.len(), 5);
    assert_eq!(with[4]["seq"], 5);
    api.stop().await;
}

#[tokio::test]
async fn an_event_with_a_time_after_the_start_is_in_no_export() {
    let (api, ids) = api_with_returns(1, &[]).await;
    append(&api.db, ids[0], 1, |_, mut row| {
        row.created_at = OffsetDateTime::now_utc() + Duration::hours(1);
        row
    })
    .await;
    let (lines, before) = checked(&export(&api, "/events", NDJSON).await);
    assert_eq!(lines.len(), 1);
    assert!(before < OffsetDateTime::now_utc() + Duration::minutes(1));
    let early = "/events?created_before=2026-01-02T03:04:05.678902Z";
    assert_eq!(
        checked(&export(&api, early, NDJSON).await).1,
        LONG_AGO + Duration::microseconds(1)
    );
    api.stop().await;
}

#[tokio::test]
async fn p13_a_revoked_token_ends_its_export() {
    let (api, ids) = api_with_returns(1, &[]).await;
    append_much(&api.db, ids[0]).await;
    let token = json!({"user_id": 8, "role": "auditor", "jti": "lost"});
    let request = api.http.get(api.url("/events")).header("accept", NDJSON);
    let request = request.bearer_auth(api.keys.mint(token));
    let mut stream = request.send().await.expect("a response").bytes_stream();
    stream.next().await.expect("a part").expect("a part");
    revoke(&api.db, "token_id", "lost").await;
    api.until_metric("auth_revoked_tokens 1").await;
    let mut cut = false;
    while let Some(part) = stream.next().await {
        cut |= part.is_err();
    }
    assert!(cut, "it went on to its end");
    api.stop().await;
}

#[tokio::test]
async fn p12_the_number_of_exports_in_progress_is_limited() {
    let (api, ids) = api_with_returns(1, &[]).await;
    append_much(&api.db, ids[0]).await;
    let by = |user| {
        let token = api.token_of(Format::Jwt, user, "auditor");
        let request = api.http.get(api.url("/events")).bearer_auth(token);
        request.header("accept", NDJSON).send()
    };
    let refused = async |user| {
        let answer = Answer::read(by(user).await.expect("a response")).await;
        answer.problem(429, "too-many-exports");
    };
    let mut under_way = Vec::new();
    for user in 101..105 {
        for _ in 0..4 {
            under_way.push(by(user).await.expect("headers"));
        }
        refused(user).await;
    }
    refused(105).await;
    assert_eq!(
        api.get("/events", &auditor(&api)).await.status,
        200,
        "pages go on"
    );
    under_way.pop();
    // The server notices a disconnect when it writes, or when it reads the close.
    let deadline = std::time::Duration::from_secs(20);
    until("the permit is returned", deadline, || async {
        let answer = ask(&api, "/events", CSV).send().await;
        (answer.expect("a response").status() != 429).then_some(())
    })
    .await;
    drop(under_way);
    api.stop().await;
}
