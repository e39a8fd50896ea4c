//! A door before the broker: while it is closed, no request gets through and no connection is lost. What the broker says
//! of the cluster passes through it, too.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use shared::test_support::env;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Stands on a port of its own and passes requests on to the broker of `KAFKA_BROKERS`.
pub(crate) struct Door {
    open: watch::Sender<bool>,
    hiding: Arc<Hiding>,
    /// What a client is given instead of `KAFKA_BROKERS`.
    pub(crate) brokers: String,
}

#[derive(Default)]
struct Hiding {
    hides: AtomicBool,
    told: AtomicUsize,
}

impl Door {
    pub(crate) async fn open_before_the_broker() -> Self {
        let broker = env("KAFKA_BROKERS");
        let (host, _) = broker.split_once(':').expect("one broker, host:port");
        let listener = TcpListener::bind((host, 0)).await.expect("a free port");
        let own = format!("{host}:{}", listener.local_addr().expect("bound").port());
        let (open, is_open) = watch::channel(true);
        // Metadata tells clients where the broker is: it must say where the door is.
        let names = (name(&broker), name(&own));
        let hiding = Arc::<Hiding>::default();
        let at_answers = Arc::clone(&hiding);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&broker).await.expect("the broker");
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pass_requests(from_client, to_server, is_open.clone()));
                tokio::spawn(pass_answers(
                    from_server,
                    to_client,
                    names.clone(),
                    Arc::clone(&at_answers),
                ));
            }
        });
        Self {
            open,
            hiding,
            brokers: own,
        }
    }

    pub(crate) fn close(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    /// From now on, who asks about a topic is told of no broker: so answers one that is stopping or starting. Answers how
    /// many were told so before.
    pub(crate) fn hide_the_broker(&self) -> usize {
        self.hiding.hides.store(true, Ordering::Relaxed);
        self.told()
    }

    pub(crate) fn show_the_broker(&self) {
        self.hiding.hides.store(false, Ordering::Relaxed);
    }

    pub(crate) fn told(&self) -> usize {
        self.hiding.told.load(Ordering::Relaxed)
    }
}

/// As the protocol writes it in an answer: the host's text, then the port in four bytes.
fn name(address: &str) -> Vec<u8> {
    let (host, port) = address.split_once(':').expect("host:port");
    let port: i32 = port.parse().expect("a port");
    [host.as_bytes(), &port.to_be_bytes()].concat()
}

async fn pass_requests(
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

async fn pass_answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    (broker, own): (Vec<u8>, Vec<u8>),
    hiding: Arc<Hiding>,
) -> io::Result<()> {
    loop {
        let length = from.read_u32().await?;
        let mut answer = vec![0; usize::try_from(length).expect("32 bits")];
        from.read_exact(&mut answer).await?;
        // Of the same length, so that nothing else in the answer changes.
        let found = (0..answer.len()).filter(|at| answer[*at..].starts_with(&broker));
        for at in found.collect::<Vec<_>>() {
            answer[at..at + own.len()].copy_from_slice(&own);
        }
        if hiding.hides.load(Ordering::Relaxed) && is_about_topics(&answer, &own) {
            hiding.told.fetch_add(1, Ordering::Relaxed);
            answer[BROKERS] = 1;
            answer.drain(BROKER..BROKER_NAME + own.len() + 2);
        }
        to.write_u32(u32::try_from(answer.len()).expect("32 bits"))
            .await?;
        to.write_all(&answer).await?;
    }
}

/// Where an answer to Metadata (version 9 and later, <https://kafka.apache.org/protocol.html>) has the number of its
/// brokers plus one, and its only broker: node id, host, port, no rack, no tags.
const BROKERS: usize = 9;
const BROKER: usize = 10;
const BROKER_NAME: usize = BROKER + 5;

/// With one broker, and at least one topic after the cluster's id and the controller's.
fn is_about_topics(answer: &[u8], own: &[u8]) -> bool {
    let has_broker = answer.get(BROKERS) == Some(&2)
        && answer
            .get(BROKER_NAME..)
            .is_some_and(|it| it.starts_with(own));
    let end = BROKER_NAME + own.len() + 2;
    let cluster_id = answer.get(end).map_or(0, |length| usize::from(*length));
    has_broker
        && answer
            .get(end + cluster_id + 4)
            .is_some_and(|topics| *topics > 1)
}
