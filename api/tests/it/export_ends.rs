//! Exports end with what allowed them, whether the client reads or not, and with the api; and are continued afterwards.

use std::collections::HashSet;
use std::time::Duration as Wait;

use futures_util::StreamExt;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use shared::runtime::http_server::Drain;
use shared::test_support::TestDb;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use tokio::time::Instant;

use crate::audit_rows::{LONG_AGO, append};
use crate::events::{api_with_returns, auditor};
use crate::harness::{Api, count, revoke, until};
use crate::tokens::{Format, Issuer};

const NDJSON: &str = "application/x-ndjson";

/// Some 30 MB, more than the socket buffers between client and server. Four events have the same time, and after
/// every second four the clock has gone back by a second.
async fn append_much(db: &TestDb, id: i64) {
    append(db, id, 7_000, |n, mut row| {
        row.event_data = format!("{{\"pad\":\"{}\"}}", "x".repeat(4_000));
        row.created_at = LONG_AGO + Duration::seconds(i64::from((n / 4) ^ 1));
        row
    })
    .await;
}

async fn export(http: &Client, address: std::net::SocketAddr, path: &str, token: &str) -> Response {
    let request = http
        .get(format!("http://{address}{path}"))
        .bearer_auth(token);
    let request = request.header("accept", NDJSON);
    request.send().await.expect("a response")
}

/// The rest of the body, and whether the connection was closed in the middle of it.
async fn rest(response: Response) -> (Vec<u8>, bool) {
    let (mut stream, mut body) = (response.bytes_stream(), Vec::new());
    while let Some(part) = stream.next().await {
        match part {
            Ok(part) => body.extend_from_slice(&part),
            Err(_) => return (body, true),
        }
    }
    (body, false)
}

#[tokio::test]
async fn p13_an_export_ends_when_the_key_of_its_token_is_retired() {
    let (api, ids) = api_with_returns(1, &[]).await;
    let stolen = Issuer::new(2);
    api.keys.write(&[&stolen]);
    api.until_metric(r#"auth_keys{use="sig"} 2"#).await;
    append_much(&api.db, ids[0]).await;
    for format in Format::ALL {
        let token = stolen.mint_as(format, json!({"user_id": 8, "role": "auditor"}));
        let response = export(&api.http, api.address, "/events", &token).await;
        assert_eq!(response.status(), 200);
        api.keys.write(&[]);
        for key_use in ["sig", "biscuit"] {
            api.until_metric(&format!(r#"auth_keys{{use="{key_use}"}} 1"#))
                .await;
        }
        assert!(rest(response).await.1, "{format:?}: it went on to its end");
        api.keys.write(&[&stolen]);
        for key_use in ["sig", "biscuit"] {
            api.until_metric(&format!(r#"auth_keys{{use="{key_use}"}} 2"#))
                .await;
        }
    }
    api.stop().await;
}

/// As many exports as one holder may have, which nobody reads.
async fn unread(api: &Api, token: &str) -> Vec<Response> {
    let mut open = Vec::new();
    loop {
        let response = export(&api.http, api.address, "/events", token).await;
        match response.status().as_u16() {
            200 => open.push(response),
            429 => return open,
            other => panic!("{other}"),
        }
    }
}

async fn until_an_export_begins(api: &Api, token: &str) {
    until("an export begins", Wait::from_secs(20), || async {
        let response = export(&api.http, api.address, "/events", token).await;
        response.status() == 200
    })
    .await;
}

#[tokio::test]
async fn p12_an_export_that_is_not_read_ends_with_its_token() {
    let flags = ["--api-write-timeout-secs", "3600"];
    let (api, ids) = api_with_returns(1, &flags).await;
    append_much(&api.db, ids[0]).await;
    let claims = json!({"user_id": 8, "role": "auditor", "jti": "lost"});
    let open = unread(&api, &api.keys.mint(claims)).await;
    assert!(!open.is_empty());
    revoke(&api.db, "token_id", "lost").await;
    until_an_export_begins(&api, &auditor(&api)).await;
    for response in open {
        assert!(rest(response).await.1, "the connection was closed");
    }
    api.stop().await;
}

fn whole_lines(body: &[u8]) -> Vec<Value> {
    let end = body
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let text = std::str::from_utf8(&body[..end]).expect("UTF-8");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    lines.collect()
}

/// What is left of an export that was cut, as docs/API.md says how to get it.
fn continued(path: &str, last: &Value) -> String {
    if path == "/events" {
        let time = last["created_at"].as_str().expect("a time");
        let time = OffsetDateTime::parse(time, &Rfc3339).expect("a time");
        let from = (time - Duration::minutes(1)).format(&Rfc3339);
        format!("{path}?created_from={}", from.expect("a time"))
    } else {
        format!("{path}?cursor={}", last["seq"])
    }
}

#[tokio::test]
async fn p11_an_export_is_cut_when_the_api_stops_and_is_continued_at_another_one() {
    let (api, ids) = api_with_returns(1, &[]).await;
    append_much(&api.db, ids[0]).await;
    let (token, http) = (auditor(&api), api.http.clone());
    let another = api.start_another().await;
    let one = format!("/returns/{}/events", ids[0]);
    let mut open = Vec::new();
    for path in ["/events", &one] {
        open.push((path, export(&http, api.address, path, &token).await));
    }
    let asked = Instant::now();
    let (db, drain) = api.stop_and_keep_db().await;
    assert_eq!(drain, Drain::Complete);
    assert!(
        asked.elapsed() < Wait::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
    for (path, response) in open {
        let (body, cut) = rest(response).await;
        let mut lines = whole_lines(&body);
        assert!(cut && !lines.is_empty(), "{path}");
        assert!(lines.iter().all(|line| line["_manifest"].is_null()));
        let last = lines.last().expect("a line").clone();
        // One that was not committed yet when the cut export passed its time.
        append(&db, ids[0], 1, |_, mut row| {
            let time = last["created_at"].as_str().expect("a time");
            let time = OffsetDateTime::parse(time, &Rfc3339).expect("a time");
            row.created_at = time - Duration::seconds(30);
            row
        })
        .await;
        let path = continued(path, &last);
        let (body, cut) = rest(export(&http, another.address, &path, &token).await).await;
        assert!(!cut);
        lines.extend(whole_lines(&body));
        assert!(lines.pop().expect("a line")["_manifest"].is_object());
        let seen: HashSet<&str> = lines
            .iter()
            .map(|line| line["event_id"].as_str().expect("an id"))
            .collect();
        let all = count(&db, "SELECT COUNT(*) FROM return_events").await;
        assert_eq!(i64::try_from(seen.len()).expect("few"), all, "{path}");
        if path.contains("cursor") {
            assert_eq!(lines.len(), seen.len(), "{path}: an event twice");
        }
    }
    another.stop.cancel();
    let drained = another.task.await.expect("no panic").expect("a clean end");
    assert_eq!(drained, Drain::Complete);
}
