//! A door before the broker: while it is closed, no request gets through and no connection is lost.

use std::io;

use shared::test_support::env;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Stands on a port of its own and passes requests on to the broker of `KAFKA_BROKERS`.
pub(crate) struct Door {
    open: watch::Sender<bool>,
    /// What a client is given instead of `KAFKA_BROKERS`.
    pub(crate) brokers: String,
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
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&broker).await.expect("the broker");
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pass_requests(from_client, to_server, is_open.clone()));
                tokio::spawn(pass_answers(from_server, to_client, names.clone()));
            }
        });
        Self { open, brokers: own }
    }

    pub(crate) fn close(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
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
        to.write_u32(length).await?;
        to.write_all(&answer).await?;
    }
}
