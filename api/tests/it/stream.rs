//! `GET /returns/{id}/stream`: every change once, in order, across restarts and cuts; who may read it, and how long.

mod changes;
mod ends;
mod resumed;

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Response;
use serde_json::Value;
use shared::test_support::TestDb;
use tokio::time::timeout;

use crate::harness::{Answer, Api, CUSTOMER, until};

/// Longer than a heartbeat, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// A client's view of a stream.
struct Frames {
    response: Response,
    text: String,
}

impl Frames {
    /// Opens a stream of the usual customer's return.
    async fn of(api: &Api, id: i64) -> Self {
        Self::open(api, api.address, id, &api.customer_token(), None).await
    }

    async fn after(api: &Api, id: i64, seq: i64) -> Self {
        Self::open(api, api.address, id, &api.customer_token(), Some(seq)).await
    }

    async fn open(
        api: &Api,
        address: SocketAddr,
        id: i64,
        token: &str,
        last_seen: Option<i64>,
    ) -> Self {
        // As `with_permit`, for a response that does not end.
        let response = until("a free connection", DEADLINE, || async {
            let response = ask(api, address, id, token, last_seen).await;
            if response.status() != 503 {
                return Some(response);
            }
            Answer::read(response).await.problem(503, "unavailable");
            None
        })
        .await;
        let status = response.status();
        assert_eq!(status, 200, "{:?}", response.text().await);
        let text = String::new();
        let mut frames = Self { response, text };
        assert_eq!(frames.next().await.as_deref(), Some("retry: 3000"));
        frames
    }

    /// The next frame, comments included; `None` at the end of the body.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let frame = frame.to_owned();
                self.text = rest.to_owned();
                return Some(frame);
            }
            let chunk = timeout(DEADLINE, self.response.chunk()).await;
            match chunk.expect("a frame in time").expect("an unbroken body") {
                Some(chunk) => self
                    .text
                    .push_str(std::str::from_utf8(&chunk).expect("UTF-8")),
                None => {
                    assert_eq!(self.text, "", "half a frame");
                    return None;
                }
            }
        }
    }

    /// The next frame that is not a comment. Heartbeats alone do not extend the test's deadline.
    async fn event(&mut self) -> Option<String> {
        let event = timeout(DEADLINE, async {
            loop {
                match self.next().await {
                    Some(frame) if frame == ":" => {}
                    frame => return frame,
                }
            }
        });
        event.await.expect("more than a comment in time")
    }

    /// The seq and status of the next frame, which must be a status.
    async fn status(&mut self) -> (i64, String) {
        let frame = self.event().await.expect("a status");
        status_of(&frame).unwrap_or_else(|| panic!("no status: {frame}"))
    }

    /// All statuses up to `event: end`, and its reason. Checks that nothing follows.
    async fn rest(&mut self) -> (Vec<(i64, String)>, String) {
        let mut statuses = Vec::new();
        loop {
            let frame = self.event().await.expect("an end");
            if let Some(status) = status_of(&frame) {
                statuses.push(status);
                continue;
            }
            let reason = frame
                .strip_prefix("event: end\ndata: {\"reason\":\"")
                .and_then(|rest| rest.strip_suffix("\"}"))
                .unwrap_or_else(|| panic!("no end: {frame}"));
            assert_eq!(self.next().await, None, "behind the end");
            return (statuses, reason.to_owned());
        }
    }
}

/// `None` if the frame is not a status. Its id is the seq.
fn status_of(frame: &str) -> Option<(i64, String)> {
    let (id, data) = frame
        .strip_prefix("event: status\nid: ")?
        .split_once("\ndata: ")?;
    let data: Value = serde_json::from_str(data).expect("JSON");
    let seq = data["seq"].as_i64().expect("a number");
    assert_eq!(id, seq.to_string());
    Some((seq, data["status"].as_str().expect("text").to_owned()))
}

async fn ask(
    api: &Api,
    address: SocketAddr,
    id: i64,
    token: &str,
    last_seen: Option<i64>,
) -> Response {
    let url = format!("http://{address}/returns/{id}/stream");
    let mut request = api.http.get(url).bearer_auth(token);
    if let Some(seq) = last_seen {
        request = request.header("last-event-id", seq);
    }
    request.send().await.expect("a response")
}

/// The response to a stream that must not be opened.
async fn refused(api: &Api, id: i64, token: &str) -> Answer {
    let response = ask(api, api.address, id, token, None).await;
    assert_ne!(response.status(), 200);
    Answer::read(response).await
}

/// An api with one return of the usual customer.
async fn api_with_a_return(flags: &[&str]) -> (Api, i64) {
    let api = Api::start_with(flags).await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    let id = api.file(1).await.return_id();
    (api, id)
}

/// The rows of a return above a seq.
async fn events(db: &TestDb, id: i64, above: i64) -> Vec<(i64, String)> {
    sqlx::query_as(
        "SELECT CAST(seq AS SIGNED), JSON_UNQUOTE(JSON_EXTRACT(event_data, '$.to')) FROM return_events \
         WHERE return_id = ? AND seq > ? ORDER BY seq",
    )
    .bind(id)
    .bind(above)
    .fetch_all(&db.pool)
    .await
    .expect("events")
}
