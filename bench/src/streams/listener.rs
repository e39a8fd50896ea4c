//! A client that listens to one return and records when each event arrives.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::ensure;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use shared::domain::ids::ReturnId;
use tokio::sync::mpsc::UnboundedSender;

use crate::connection;

/// The events of a stream until now.
pub(super) struct Listener {
    pub(super) id: ReturnId,
    pub(super) seq: i64,
}

pub(super) struct Received {
    pub(super) stream: usize,
    pub(super) seq: i64,
    pub(super) at: Instant,
}

/// Listens until the stream ends, in a task of its own.
pub(super) async fn listen(
    address: SocketAddr,
    id: ReturnId,
    token: &str,
    stream: usize,
    reports: UnboundedSender<Received>,
) -> anyhow::Result<()> {
    let mut sender = connection::open(address).await?;
    let request = Request::get(format!("/returns/{id}/stream"))
        .header("host", "localhost")
        .header("authorization", format!("Bearer {token}"))
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    ensure!(response.status() == StatusCode::OK, "{}", response.status());
    let body = response.into_body();
    tokio::spawn(async move {
        // The connection closes when its sender is dropped.
        let _sender = sender;
        read(body, |seq| {
            let at = Instant::now();
            reports.send(Received { stream, seq, at }).is_ok()
        })
        .await;
    });
    Ok(())
}

async fn read(mut body: Incoming, mut received: impl FnMut(i64) -> bool) {
    let mut text = String::new();
    while let Some(Ok(frame)) = body.frame().await {
        let data = frame.data_ref().map_or(&[][..], |data| &data[..]);
        text.push_str(&String::from_utf8_lossy(data));
        while let Some((event, rest)) = text.split_once("\n\n") {
            let id = event.lines().find_map(|line| line.strip_prefix("id: "));
            if let Some(seq) = id.and_then(|id| id.parse().ok())
                && !received(seq)
            {
                return;
            }
            text = rest.to_owned();
        }
    }
}
