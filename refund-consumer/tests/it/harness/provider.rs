//! A provider with scripted responses, on a socket.

use std::sync::{Arc, Mutex};

use refund_consumer::gateway::GatewayName;
use refund_consumer::gateway::http::Http;
use refund_consumer::gateway::http::HttpArgs;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A received request.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Method and path with its query.
    pub(crate) line: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn reference(&self) -> String {
        let body: Option<Value> = serde_json::from_str(&self.body).ok();
        let reference = body.and_then(|body| body["reference"].as_str().map(str::to_owned));
        reference.unwrap_or_else(|| {
            let (_, reference) = self.line.split_once("reference=").expect("a reference");
            reference.to_owned()
        })
    }
}

/// The response, byte by byte; then the connection closes, unless it is to hang.
pub(crate) enum Reply {
    Say(String),
    /// Sends these bytes, then nothing more; the connection stays open.
    Hang(String),
}

/// A provider on a port of its own, until the test ends.
pub(crate) struct Provider {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Provider {
    pub(crate) async fn start(reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (reply, all) = (Arc::new(reply), Arc::clone(&seen));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (reply, all) = (Arc::clone(&reply), Arc::clone(&all));
                tokio::spawn(async move { serve(stream, reply.as_ref(), &all).await });
            }
        });
        Self {
            url: format!("http://{address}"),
            seen,
        }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }

    pub(crate) fn gateway(&self) -> Http {
        gateway(&self.url, |_| {})
    }
}

/// One request per connection.
async fn serve(
    mut stream: TcpStream,
    reply: &(dyn Fn(&Seen) -> Reply + Send + Sync),
    all: &Mutex<Vec<Seen>>,
) {
    // A client that has disconnected needs no response.
    let Some(seen) = read(&mut stream).await else {
        return;
    };
    let reply = reply(&seen);
    all.lock().expect("not poisoned").push(seen);
    let (Reply::Say(text) | Reply::Hang(text)) = &reply;
    let _ = stream.write_all(text.as_bytes()).await;
    if let Reply::Hang(_) = reply {
        std::future::pending::<()>().await;
    }
}

async fn read(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8(bytes.clone()).ok()?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let mut lines = head.lines();
        let line = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let seen = Seen {
            line,
            headers,
            body: body.to_owned(),
        };
        let length = seen.header("content-length").unwrap_or("0");
        if body.len() >= length.parse().ok()? {
            return Some(seen);
        }
    }
}

pub(crate) fn gateway(url: &str, change: impl Fn(&mut HttpArgs)) -> Http {
    let mut args = HttpArgs {
        gateway_name: None,
        gateway_url: None,
        gateway_token: None,
        gateway_idempotency_keys: true,
        gateway_call_timeout_ms: 10_000,
        gateway_connect_timeout_ms: 5_000,
        gateway_rate_per_sec: None,
        gateway_breaker_failures: 1_000,
        gateway_breaker_pause_ms: 600_000,
        gateway_pool_idle_ms: 1_000,
    };
    change(&mut args);
    let name = GatewayName::parse("scripted").expect("a name");
    Http::new(name, url.parse().expect("a URL"), &args, 4).expect("a client")
}

pub(crate) fn http(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}

pub(crate) fn refund(reference: &str) -> Value {
    json!({"id": "r1", "reference": reference, "status": "succeeded", "amount": "49.90", "currency": "EUR"})
}

/// As in the contract: one refund for a request, a list for a look-up.
pub(crate) fn said(seen: &Seen, refund: &Value) -> Reply {
    let found = json!({ "refunds": [refund] });
    let body = if seen.line.starts_with("GET /refunds?") {
        &found
    } else {
        refund
    };
    Reply::Say(http("200 OK", "", &body.to_string()))
}
