//! A proxy before MySQL that understands its packets and cuts a connection at a chosen statement.
//!
//! A packet is 3 bytes of length, 1 of sequence, then the payload; a client's payload starts with its command
//! (MySQL internals manual, "MySQL Packets"): 0x03 text query, 0x16 prepare, 0x17 execute.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// When the connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The server never sees the statement.
    BeforeServer,
    /// The server has done it, the client never hears.
    BeforeAnswer,
}

/// Cuts the first connection that runs a statement containing `text`.
#[derive(Debug, Clone)]
struct Trap {
    text: &'static str,
    cut: Cut,
}

pub(crate) struct MysqlProxy {
    pub(crate) address: SocketAddr,
    trap: Arc<Mutex<Option<Trap>>>,
    state: watch::Sender<State>,
}

/// How the proxy treats its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    /// Existing connections are cut, new ones refused.
    Away,
    /// What is connected now hears nothing more, without a reset; new connections work.
    Silent,
}

impl MysqlProxy {
    /// Stands before the server of `url`; answers the URL to use instead.
    pub(crate) async fn before(url: &str) -> (Self, String) {
        let (scheme, rest) = url.split_once("@").expect("mysql://user@host:port/db");
        let (server, path) = rest.split_once('/').expect("a database");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let proxy = Self {
            address: listener.local_addr().expect("bound"),
            trap: Arc::default(),
            state: watch::Sender::new(State::Up),
        };
        let url = format!("{scheme}@{}/{path}", proxy.address);
        let (server, trap) = (server.to_owned(), Arc::clone(&proxy.trap));
        let state = proxy.state.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *state.borrow() == State::Away {
                    continue;
                }
                if let Ok(upstream) = TcpStream::connect(&server).await {
                    tokio::spawn(relay(client, upstream, Arc::clone(&trap), state.clone()));
                }
            }
        });
        (proxy, url)
    }

    pub(crate) fn arm(&self, text: &'static str, cut: Cut) {
        *self.trap.lock().expect("not poisoned") = Some(Trap { text, cut });
    }

    /// Cuts every connection and refuses new ones until [`MysqlProxy::come_back`].
    pub(crate) fn go_away(&self) {
        self.state.send_replace(State::Away);
    }

    /// Lets every present connection fall silent, as a host does that lost its power.
    pub(crate) fn fall_silent(&self) {
        self.state.send_replace(State::Silent);
    }

    pub(crate) fn come_back(&self) {
        self.state.send_replace(State::Up);
    }

    /// Whether the trap was sprung.
    pub(crate) fn sprung(&self) -> bool {
        self.trap.lock().expect("not poisoned").is_none()
    }
}

/// What the client asked for last, shared with the other direction.
#[derive(Default)]
struct Session {
    /// A PREPARE of the trap's text is in flight: the answer brings its statement id.
    preparing: bool,
    statement_id: Option<[u8; 4]>,
    /// Swallow the server's next packet and end.
    cut_answer: bool,
}

async fn relay(
    client: TcpStream,
    upstream: TcpStream,
    trap: Arc<Mutex<Option<Trap>>>,
    mut state: watch::Receiver<State>,
) {
    let session = Arc::new(Mutex::new(Session::default()));
    for stream in [&client, &upstream] {
        stream.set_nodelay(true).expect("a connected socket");
    }
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = upstream.into_split();
    let requests = forward_requests(client_read, server_write, Arc::clone(&session), trap);
    let answers = forward_answers(server_read, client_write, session);
    state.mark_unchanged();
    let mut both = std::pin::pin!(async {
        // Whichever ends first drops the other, and with it both sockets.
        tokio::select! {
            () = requests => {}
            () = answers => {}
        }
    });
    tokio::select! {
        () = &mut both => {}
        _ = state.changed() => {
            if *state.borrow() == State::Silent {
                // The sockets stay open, and nobody reads or writes them.
                std::future::pending::<()>().await;
            }
        }
    }
}

async fn forward_requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    session: Arc<Mutex<Session>>,
    trap: Arc<Mutex<Option<Trap>>>,
) {
    while let Some(packet) = read_packet(&mut from).await {
        match inspect(&packet, &session, &trap) {
            None => {}
            Some(Cut::BeforeServer) => return,
            Some(Cut::BeforeAnswer) => {
                session.lock().expect("not poisoned").cut_answer = true;
            }
        }
        if to.write_all(&packet).await.is_err() {
            return;
        }
    }
}

/// Whether this packet springs the trap.
fn inspect(packet: &[u8], session: &Mutex<Session>, trap: &Mutex<Option<Trap>>) -> Option<Cut> {
    let mut armed = trap.lock().expect("not poisoned");
    let wanted = armed.as_ref()?;
    let mut session = session.lock().expect("not poisoned");
    let (command, argument) = packet.get(4..)?.split_first()?;
    let matches_text = || {
        argument
            .windows(wanted.text.len())
            .any(|window| window == wanted.text.as_bytes())
    };
    let hit = match command {
        // Whole: the session's rules say READ-COMMITTED.
        0x03 => argument == wanted.text.as_bytes(),
        0x16 => {
            session.preparing = matches_text();
            false
        }
        0x17 => session
            .statement_id
            .is_some_and(|id| argument.starts_with(&id)),
        _ => false,
    };
    hit.then(|| armed.take().map(|trap| trap.cut))?
}

async fn forward_answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    session: Arc<Mutex<Session>>,
) {
    while let Some(packet) = read_packet(&mut from).await {
        {
            let mut session = session.lock().expect("not poisoned");
            if session.cut_answer {
                return;
            }
            if std::mem::take(&mut session.preparing) {
                session.statement_id = packet.get(5..9).and_then(|id| id.try_into().ok());
            }
        }
        if to.write_all(&packet).await.is_err() {
            return;
        }
    }
}

async fn read_packet(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let mut packet = vec![0; 4];
    from.read_exact(&mut packet).await.ok()?;
    let len = usize::from(packet[0]) | usize::from(packet[1]) << 8 | usize::from(packet[2]) << 16;
    packet.resize(4 + len, 0);
    from.read_exact(&mut packet[4..]).await.ok()?;
    Some(packet)
}
