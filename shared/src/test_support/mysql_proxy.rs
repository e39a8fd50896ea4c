//! A proxy before MySQL that reads its packets and cuts or freezes a connection at a chosen statement.
//!
//! A packet is 3 bytes of length, 1 of sequence, then the payload; a client's payload starts with its command
//! (MySQL internals manual, "MySQL Packets"): 0x03 text query, 0x16 prepare, 0x17 execute.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to the connection that runs the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It is cut, and the server never sees the statement.
    BeforeServer,
    /// The server has executed it; the connection is cut before the response.
    BeforeAnswer,
    /// The server has executed it; the connection stays open and no more packets pass in either direction.
    FrozenAfterServer,
}

/// Springs at one execution of a statement that contains `text`, after `skip` others, or at each.
#[derive(Debug, Clone)]
struct Trap {
    text: &'static str,
    cut: Cut,
    skip: u32,
    at_each: bool,
}

/// Listens until its runtime ends.
#[derive(Debug)]
pub struct MysqlProxy {
    pub address: SocketAddr,
    trap: Arc<Mutex<Option<Trap>>>,
    state: watch::Sender<State>,
    server: Arc<Mutex<String>>,
}

/// How the proxy treats its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    /// Existing connections are cut, new ones refused.
    Away,
    /// Present connections get no more packets and no reset; new connections work.
    Silent,
    /// New connections get no packet either.
    Hung,
}

impl MysqlProxy {
    /// The statement by which a connection is checked before it is used again.
    pub const CHECK: &str = "/* takes_writes */ SELECT @@GLOBAL.read_only = 0";

    /// Starts a proxy before the server of `url`; returns the URL to use instead.
    ///
    /// # Panics
    /// The URL names no user, host or database.
    pub async fn before(url: &str) -> (Self, String) {
        Self::listening("127.0.0.1:0", url).await
    }

    /// As [`MysqlProxy::before`], on another address.
    ///
    /// # Panics
    /// As [`MysqlProxy::before`], or the address is not of this host.
    pub async fn listening(address: &str, url: &str) -> (Self, String) {
        let (scheme, server, path) = parts(url);
        let listener = TcpListener::bind(address).await.expect("bind");
        let proxy = Self {
            address: listener.local_addr().expect("bound"),
            trap: Arc::default(),
            state: watch::Sender::new(State::Up),
            server: Arc::new(Mutex::new(server.to_owned())),
        };
        let url = format!("{scheme}@{}/{path}", proxy.address);
        let (server, trap) = (Arc::clone(&proxy.server), Arc::clone(&proxy.trap));
        let state = proxy.state.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut state = state.clone();
                // Before connecting, so that a change meanwhile also affects this connection.
                match *state.borrow_and_update() {
                    State::Away => continue,
                    State::Hung => {
                        tokio::spawn(hold(client));
                        continue;
                    }
                    State::Up | State::Silent => {}
                }
                let server = server.lock().expect("not poisoned").clone();
                if let Ok(upstream) = TcpStream::connect(server).await {
                    tokio::spawn(relay(client, upstream, Arc::clone(&trap), state));
                }
            }
        });
        (proxy, url)
    }

    /// Sets the trap for one execution of a statement, which may have been prepared before.
    pub fn arm(&self, text: &'static str, cut: Cut) {
        self.arm_after(0, text, cut);
    }

    /// As [`MysqlProxy::arm`]; the first `skip` executions pass.
    pub fn arm_after(&self, skip: u32, text: &'static str, cut: Cut) {
        self.set(Some(Trap {
            text,
            cut,
            skip,
            at_each: false,
        }));
    }

    /// Sets the trap for every such statement until [`MysqlProxy::disarm`].
    pub fn arm_at_each(&self, text: &'static str, cut: Cut) {
        self.set(Some(Trap {
            text,
            cut,
            skip: 0,
            at_each: true,
        }));
    }

    pub fn disarm(&self) {
        self.set(None);
    }

    fn set(&self, trap: Option<Trap>) {
        *self.trap.lock().expect("not poisoned") = trap;
    }

    /// Cuts every connection and refuses new ones until [`MysqlProxy::come_back`].
    pub fn go_away(&self) {
        self.state.send_replace(State::Away);
    }

    /// Makes every present connection silent, like a host that lost its power.
    pub fn fall_silent(&self) {
        self.state.send_replace(State::Silent);
    }

    /// Makes every connection silent, also new ones, until [`MysqlProxy::come_back`].
    pub fn hang(&self) {
        self.state.send_replace(State::Hung);
    }

    /// New connections lead to the server of `url`; present ones stay where they are.
    ///
    /// # Panics
    /// As [`MysqlProxy::before`].
    pub fn switch_to(&self, url: &str) {
        let (_, server, _) = parts(url);
        server.clone_into(&mut self.server.lock().expect("not poisoned"));
    }

    pub fn come_back(&self) {
        self.state.send_replace(State::Up);
    }

    /// Whether the trap of [`MysqlProxy::arm`] was sprung.
    pub fn sprung(&self) -> bool {
        self.trap.lock().expect("not poisoned").is_none()
    }
}

/// `mysql://user`, `host:port`, and the rest.
fn parts(url: &str) -> (&str, &str, &str) {
    let (scheme, rest) = url.split_once('@').expect("mysql://user@host:port/db");
    let (server, path) = rest.split_once('/').expect("a database");
    (scheme, server, path)
}

/// State of one connection, shared by both directions.
#[derive(Default)]
struct Session {
    /// The text of a PREPARE in flight; the response has its statement id.
    preparing: Option<Vec<u8>>,
    prepared: HashMap<[u8; 4], Vec<u8>>,
    /// What happens to the next packet of the server.
    sprung: Option<Cut>,
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
    let mut both = std::pin::pin!(async {
        // The first to end drops the other one, which closes both sockets.
        tokio::select! {
            () = requests => {}
            () = answers => {}
        }
    });
    tokio::select! {
        () = &mut both => {}
        _ = state.changed() => {
            if [State::Silent, State::Hung].contains(&state.borrow()) {
                silence().await;
            }
        }
    }
}

/// A connection that was accepted, and no more.
async fn hold(_client: TcpStream) {
    silence().await;
}

/// The sockets stay open and are neither read nor written.
async fn silence() {
    std::future::pending::<()>().await;
}

async fn forward_requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    session: Arc<Mutex<Session>>,
    trap: Arc<Mutex<Option<Trap>>>,
) {
    while let Some(packet) = read_packet(&mut from).await {
        let cut = inspect(&packet, &session, &trap);
        if cut == Some(Cut::BeforeServer) {
            return;
        }
        session.lock().expect("not poisoned").sprung = cut;
        if to.write_all(&packet).await.is_err() {
            return;
        }
        if cut == Some(Cut::FrozenAfterServer) {
            silence().await;
        }
    }
}

/// Whether this packet springs the trap.
fn inspect(packet: &[u8], session: &Mutex<Session>, trap: &Mutex<Option<Trap>>) -> Option<Cut> {
    let mut session = session.lock().expect("not poisoned");
    let (command, argument) = packet.get(4..)?.split_first()?;
    if *command == 0x16 {
        session.preparing = Some(argument.to_owned());
    }
    let mut armed = trap.lock().expect("not poisoned");
    let wanted = armed.as_ref()?.text.as_bytes();
    let hit = match command {
        // Whole: the session's rules say READ-COMMITTED.
        0x03 => argument == wanted,
        0x17 => {
            let id: [u8; 4] = argument.get(..4)?.try_into().ok()?;
            let text = session.prepared.get(&id)?;
            text.windows(wanted.len()).any(|window| window == wanted)
        }
        _ => false,
    };
    let trap = armed.as_mut().filter(|_| hit)?;
    if trap.skip > 0 {
        trap.skip -= 1;
        return None;
    }
    let cut = trap.cut;
    armed.take_if(|trap| !trap.at_each);
    Some(cut)
}

async fn forward_answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    session: Arc<Mutex<Session>>,
) {
    while let Some(packet) = read_packet(&mut from).await {
        let sprung = {
            let mut session = session.lock().expect("not poisoned");
            if let Some(text) = session.preparing.take()
                && let Some(id) = packet.get(5..9).and_then(|id| id.try_into().ok())
            {
                session.prepared.insert(id, text);
            }
            session.sprung
        };
        match sprung {
            None | Some(Cut::BeforeServer) => {}
            Some(Cut::BeforeAnswer) => return,
            Some(Cut::FrozenAfterServer) => silence().await,
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
