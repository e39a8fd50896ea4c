//! A normal client beside hostile ones: slow headers and slow readers (slowhttptest), slow bodies with a valid token, and
//! thousands of idle connections.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use e2e::program::Program;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, StatusCode};
use shared::domain::ids::CustomerId;
use shared::test_support::TestDb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::open_files;
use crate::process;
use crate::report;
use crate::tokens::{Keys, Kind};
use crate::{api, connection};

#[derive(Debug, clap::Args)]
pub(crate) struct HostileArgs {
    /// Connections of each attack by slowhttptest.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    attackers: u16,

    /// Seconds of each attack, and of the measurement without one.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(5..=600))]
    seconds: u16,

    /// Idle connections.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(1..=25_000))]
    idle: u16,

    /// API_MAX_CONNECTIONS during the idle connections.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u16).range(100..=20_000))]
    cap: u16,
}

const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Between two requests of the normal client.
const PACE: Duration = Duration::from_millis(5);
const CUSTOMER: i64 = 42;

/// Measures all and prints a table; `false` if the normal client was refused, or waited three times as long as usual.
pub(crate) async fn run(args: &HostileArgs) -> anyhow::Result<bool> {
    let db = TestDb::create().await;
    db.seed_orders(1, 1, CustomerId(CUSTOMER)).await;
    let keys = Keys::generate()?;
    let cap = args.cap.to_string();
    // No rate limits: all clients have one address, and this measures the other defences.
    let more = [
        ("API_MAX_CONNECTIONS", cap.clone()),
        ("STREAMS_MAX", "50".to_owned()),
    ];
    let api = api::start(&db, &keys, &more).await?;
    let client = e2e::client::Client::new(&keys.mint(Kind::JwtEdDsa, CUSTOMER, 0)?);
    let filed = client.file(api.api_address()?, 1, None).await?;
    let stage = Stage {
        path: format!("/returns/{}", filed.return_id().context("a return")?),
        authorization: format!("Bearer {}", keys.mint(Kind::JwtEdDsa, CUSTOMER, 0)?),
        seconds: Duration::from_secs(args.seconds.into()),
        api: &api,
    };
    let resident = || process::resident_kib(api.pid());
    let mut rows = vec![stage.beside("no attack", resident()?).await?];
    for attack in Attack::ALL {
        let before = resident()?;
        let mut tool = attack.start(&stage, args)?;
        rows.push(stage.beside(attack.name(), before).await?);
        ensure!(
            tool.try_wait()?.is_none_or(|status| status.success()),
            "slowhttptest failed"
        );
        tool.kill().await?;
    }
    let before = resident()?;
    let attackers = slow_bodies(&stage, args.attackers)?;
    let row = stage.beside("slow bodies", before).await?;
    ensure!(
        row.most.files > usize::from(args.attackers) / 2,
        "most attackers were away: {} files",
        row.most.files
    );
    rows.push(row);
    drop(attackers);
    let before = resident()?;
    let crowd = Crowd::gather(stage.api.api_address()?, args.idle).await?;
    rows.push(stage.beside("an idle crowd", before).await?);
    drop(crowd);
    let sound = rows.iter().all(|row| row.sound(&rows[0]));
    report::table(
        &format!(
            "A normal client (`GET /returns/{{id}}` every {} ms, each tenth on a new connection) beside {} connections of \
             each attack, and beside {} idle ones; {} s each, API_MAX_CONNECTIONS {cap}, rates off.",
            PACE.as_millis(),
            args.attackers,
            args.idle,
            args.seconds
        ),
        "| beside | requests | refused | p50 ms | p99 ms | longest ms | api: files at most | memory before, at most, MiB | TCP buffers at most, MiB | cores |",
        &rows.iter().map(Row::line).collect::<Vec<_>>(),
    );
    api.stop(STOP_DEADLINE).await?;
    Ok(sound)
}

/// An attack by slowhttptest.
#[derive(Debug, Clone, Copy)]
enum Attack {
    Headers,
    Read,
}

impl Attack {
    const ALL: [Self; 2] = [Self::Headers, Self::Read];

    fn name(self) -> &'static str {
        match self {
            Self::Headers => "slow headers",
            Self::Read => "slow readers",
        }
    }

    fn start(self, stage: &Stage<'_>, args: &HostileArgs) -> anyhow::Result<tokio::process::Child> {
        let address = stage.api.api_address()?;
        let (mode, path): (&[&str], &str) = match self {
            Self::Headers => (&["-H", "-i", "5", "-x", "24"], "/returns"),
            // The largest response.
            Self::Read => (
                &["-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32"],
                "/docs/swagger-ui-bundle.js",
            ),
        };
        Command::new("slowhttptest")
            .args(mode)
            .args(["-c", &args.attackers.to_string(), "-r", "200", "-p", "3"])
            .args(["-l", &args.seconds.to_string()])
            .args(["-u", &format!("http://{address}{path}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("slowhttptest is needed (Debian: apt-get install slowhttptest)")
    }
}

/// Clients with a valid token that send one byte of a body every two seconds, and reconnect when they are disconnected.
fn slow_bodies(stage: &Stage<'_>, count: u16) -> anyhow::Result<JoinSet<()>> {
    let address = stage.api.api_address()?;
    let head = format!(
        "POST /returns HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nContent-Type: application/json\r\n\
         Content-Length: 8192\r\n\r\n",
        stage.authorization
    );
    let mut attackers = JoinSet::new();
    for number in 0..count {
        let head = head.clone();
        attackers.spawn(async move {
            // 200 a second, as slowhttptest does.
            tokio::time::sleep(Duration::from_millis(5) * u32::from(number)).await;
            loop {
                let _ = trickle(address, &head).await;
            }
        });
    }
    Ok(attackers)
}

/// Sends until the server closes the connection.
async fn trickle(address: SocketAddr, head: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(head.as_bytes()).await?;
    let mut answer = [0; 1024];
    loop {
        match timeout(Duration::from_secs(2), stream.read(&mut answer)).await {
            Ok(Ok(0)) => return Ok(()),
            Ok(read) => read.map(|_| ())?,
            Err(_) => stream.write_all(b" ").await?,
        }
    }
}

/// Connections that send nothing.
struct Crowd {
    _connections: Vec<TcpStream>,
}

impl Crowd {
    async fn gather(address: SocketAddr, count: u16) -> anyhow::Result<Self> {
        open_files::allow(u64::from(count) + 1000)?;
        let mut connections = Vec::new();
        for _ in 0..count {
            connections.push(TcpStream::connect(address).await?);
        }
        Ok(Self {
            _connections: connections,
        })
    }
}

/// The normal client and its request.
struct Stage<'a> {
    path: String,
    authorization: String,
    seconds: Duration,
    api: &'a Program,
}

/// The measurements of the normal client.
struct Row {
    beside: &'static str,
    /// Microseconds.
    latency: Histogram<u64>,
    refused: u64,
    before_kib: u64,
    most: Most,
    /// CPU of the api, on average.
    cores: f64,
}

impl Stage<'_> {
    /// `before_kib`: resident memory of the api before the attack.
    async fn beside(&self, beside: &'static str, before_kib: u64) -> anyhow::Result<Row> {
        report::progress(&format!("beside {beside}"));
        let done = Arc::new(AtomicBool::new(false));
        let watch = tokio::spawn(watch(self.api.pid(), Arc::clone(&done)));
        let mut row = Row {
            beside,
            latency: Histogram::new(3)?,
            refused: 0,
            before_kib,
            most: Most::default(),
            cores: 0.0,
        };
        let (used, began) = (process::cpu_seconds(self.api.pid())?, Instant::now());
        let mut kept = self.connect().await?;
        let end = Instant::now() + self.seconds;
        for number in 0_u64.. {
            if Instant::now() >= end {
                break;
            }
            self.ask(&mut kept, number % 10 == 9, &mut row).await?;
            tokio::time::sleep(PACE).await;
        }
        row.cores = (process::cpu_seconds(self.api.pid())? - used) / began.elapsed().as_secs_f64();
        done.store(true, Ordering::Relaxed);
        row.most = watch.await??;
        Ok(row)
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
        connection::open(self.api.api_address()?).await
    }

    async fn ask(
        &self,
        kept: &mut SendRequest<Empty<Bytes>>,
        reconnect: bool,
        row: &mut Row,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        if reconnect || kept.ready().await.is_err() {
            *kept = self.connect().await?;
        }
        let request = Request::get(&self.path)
            .header("host", "localhost")
            .header("authorization", &self.authorization)
            .body(Empty::new())?;
        match kept.send_request(request).await {
            Ok(response) => {
                let good = response.status() == StatusCode::OK;
                response.into_body().collect().await?;
                row.refused += u64::from(!good);
            }
            // The server may close it to make room just when it is used. A client then reconnects, which counts as waiting.
            Err(_) => {
                *kept = self.connect().await?;
                row.refused += 1;
            }
        }
        row.latency
            .record(u64::try_from(began.elapsed().as_micros()).context("hours")?)?;
        Ok(())
    }
}

/// The maxima, sampled ten times a second.
#[derive(Debug, Default)]
struct Most {
    /// Open files of the api.
    files: usize,
    /// Resident memory of the api.
    resident_kib: u64,
    /// Memory of all sockets of the machine.
    tcp_kib: u64,
}

async fn watch(pid: u32, done: Arc<AtomicBool>) -> anyhow::Result<Most> {
    let mut most = Most::default();
    while !done.load(Ordering::Relaxed) {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        most.files = most.files.max(files);
        most.resident_kib = most.resident_kib.max(process::resident_kib(pid)?);
        most.tcp_kib = most.tcp_kib.max(process::tcp_buffers_kib()?);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(most)
}

impl Row {
    /// Never refused, and p99 below three times that of the quiet run.
    fn sound(&self, quiet: &Self) -> bool {
        self.refused == 0
            && self.latency.value_at_quantile(0.99) < 3 * quiet.latency.value_at_quantile(0.99)
    }

    fn line(&self) -> String {
        let millis = |quantile| {
            let micros = self.latency.value_at_quantile(quantile);
            f64::from(u32::try_from(micros).unwrap_or(u32::MAX)) / 1000.0
        };
        format!(
            "| {} | {} | {} | {:.2} | {:.2} | {:.1} | {} | {}, {} | {} | {:.2} |",
            self.beside,
            self.latency.len(),
            self.refused,
            millis(0.5),
            millis(0.99),
            millis(1.0),
            self.most.files,
            self.before_kib / 1024,
            self.most.resident_kib / 1024,
            self.most.tcp_kib / 1024,
            self.cores
        )
    }
}
