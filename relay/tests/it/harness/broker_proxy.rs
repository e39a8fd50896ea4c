//! A proxy in front of the broker. While it is paused, no request gets through and no connection is lost. It can also
//! hide the broker in the broker's responses about the cluster.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use shared::test_support::env;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Listens on its own port and forwards to the broker of `KAFKA_BROKERS`.
pub(crate) struct BrokerProxy {
    is_open: watch::Sender<bool>,
    hiding: Arc<Hiding>,
    /// The value for clients instead of `KAFKA_BROKERS`.
    pub(crate) brokers: String,
}

#[derive(Default)]
struct Hiding {
    is_on: AtomicBool,
    hidden: AtomicUsize,
}

impl BrokerProxy {
    pub(crate) async fn start() -> Self {
        let broker = env("KAFKA_BROKERS");
        let (host, _) = broker.split_once(':').expect("one broker, host:port");
        let listener = TcpListener::bind((host, 0)).await.expect("a free port");
        let own = format!("{host}:{}", listener.local_addr().expect("bound").port());
        let (open, is_open) = watch::channel(true);
        // Metadata tells clients the broker's address, so it must contain the proxy's address instead.
        let addresses = (encode(&broker), encode(&own));
        let hiding = Arc::<Hiding>::default();
        let shared_hiding = Arc::clone(&hiding);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&broker).await.expect("the broker");
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(forward_requests(from_client, to_server, is_open.clone()));
                tokio::spawn(forward_responses(
                    from_server,
                    to_client,
                    addresses.clone(),
                    Arc::clone(&shared_hiding),
                ));
            }
        });
        Self {
            is_open: open,
            hiding,
            brokers: own,
        }
    }

    pub(crate) fn pause(&self) {
        self.is_open.send_replace(false);
    }

    pub(crate) fn resume(&self) {
        self.is_open.send_replace(true);
    }

    /// Removes the broker from every response about topics, as a broker does that is stopping or starting. Returns how
    /// many responses were changed before.
    pub(crate) fn hide_the_broker(&self) -> usize {
        self.hiding.is_on.store(true, Ordering::Relaxed);
        self.hidden()
    }

    pub(crate) fn show_the_broker(&self) {
        self.hiding.is_on.store(false, Ordering::Relaxed);
    }

    /// The number of responses without the broker.
    pub(crate) fn hidden(&self) -> usize {
        self.hiding.hidden.load(Ordering::Relaxed)
    }
}

/// An address as in a response of the protocol: the host's text, then the port in four bytes.
fn encode(address: &str) -> Vec<u8> {
    let (host, port) = address.split_once(':').expect("host:port");
    let port: i32 = port.parse().expect("a port");
    [host.as_bytes(), &port.to_be_bytes()].concat()
}

async fn forward_requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut is_open: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 || is_open.wait_for(|open| *open).await.is_err() {
            return Ok(());
        }
        to.write_all(&buffer[..length]).await?;
    }
}

async fn forward_responses(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    (broker, own): (Vec<u8>, Vec<u8>),
    hiding: Arc<Hiding>,
) -> io::Result<()> {
    loop {
        let length = from.read_u32().await?;
        let mut response = vec![0; usize::try_from(length).expect("32 bits")];
        from.read_exact(&mut response).await?;
        // Both addresses have the same length, so nothing else in the response changes.
        let found = (0..response.len()).filter(|at| response[*at..].starts_with(&broker));
        for at in found.collect::<Vec<_>>() {
            response[at..at + own.len()].copy_from_slice(&own);
        }
        if hiding.is_on.load(Ordering::Relaxed) && is_about_topics(&response, &own) {
            hiding.hidden.fetch_add(1, Ordering::Relaxed);
            response[BROKERS] = 1;
            response.drain(BROKER..BROKER_NAME + own.len() + 2);
        }
        to.write_u32(u32::try_from(response.len()).expect("32 bits"))
            .await?;
        to.write_all(&response).await?;
    }
}

/// Positions in a Metadata response (version 9 and later, <https://kafka.apache.org/protocol.html>): the number of
/// brokers plus one, then the only broker: node id, host, port, no rack, no tags.
const BROKERS: usize = 9;
const BROKER: usize = 10;
const BROKER_NAME: usize = BROKER + 5;

/// Whether this is a Metadata response with one broker and, after the cluster's id and the controller's, a topic.
fn is_about_topics(response: &[u8], own: &[u8]) -> bool {
    let has_broker = response.get(BROKERS) == Some(&2)
        && response
            .get(BROKER_NAME..)
            .is_some_and(|it| it.starts_with(own));
    let end = BROKER_NAME + own.len() + 2;
    let cluster_id = response.get(end).map_or(0, |length| usize::from(*length));
    has_broker
        && response
            .get(end + cluster_id + 4)
            .is_some_and(|topics| *topics > 1)
}
