//! Two consumers under one `CONSUMER_INSTANCE_ID`: Kafka evicts the one that joined first.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;

use crate::harness::World;

/// Without a pause each of them starts again every second or two.
const OBSERVED: Duration = Duration::from_secs(12);
const EVICTED: &str = "has joined the group under this CONSUMER_INSTANCE_ID";

struct Consumer {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
}

impl Consumer {
    /// `name` is that of its ledger: the simulated gateway is for one process.
    fn start(world: &World, name: &str) -> Self {
        let ledger = world.ledger().with_file_name(name);
        let args = world.args(&["--consumer-instance-id=same"]);
        let args = args[1..]
            .iter()
            .filter(|arg| !arg.starts_with("--simulated-ledger="));
        let mut child = Command::new(env!("CARGO_BIN_EXE_refund-consumer"))
            .args(args)
            .arg(format!("--simulated-ledger={}", ledger.display()))
            .env("LOG_FORMAT", "json")
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        Self { child, lines }
    }

    /// Reads its log up to a line with `text`; `false` if the program ends before.
    async fn logs(&mut self, text: &str) -> bool {
        while let Ok(Some(line)) = self.lines.next_line().await {
            if line.contains(text) {
                return true;
            }
        }
        false
    }
}

/// Starts a consumer again and again, and counts the starts and the evictions.
fn supervise(
    world: &Arc<World>,
    name: &'static str,
    [starts, evictions]: [&Arc<AtomicUsize>; 2],
) -> JoinHandle<()> {
    let (world, starts, evictions) = (world.clone(), starts.clone(), evictions.clone());
    tokio::spawn(async move {
        loop {
            starts.fetch_add(1, Ordering::Relaxed);
            let mut consumer = Consumer::start(&world, name);
            while consumer.logs(EVICTED).await {
                evictions.fetch_add(1, Ordering::Relaxed);
            }
            consumer.child.wait().await.expect("our child");
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_consumers_of_one_name_do_not_evict_each_other_again_and_again() {
    let world = Arc::new(World::new().await);
    let (starts, evictions) = (Arc::default(), Arc::default());
    let supervisors = ["one", "two"].map(|name| supervise(&world, name, [&starts, &evictions]));
    let filed = world.file(1).await;
    world.announce(&filed).await;
    world.wait_for(filed.return_id, "refunded").await;
    tokio::time::sleep(OBSERVED).await;
    supervisors.iter().for_each(JoinHandle::abort);
    let [starts, evictions] = [starts, evictions].map(|count| count.load(Ordering::Relaxed));
    assert!(starts <= 3, "{starts} starts, {evictions} evictions");
    assert!(
        evictions >= 1,
        "the evicted one reports why it takes no messages"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p11_an_evicted_consumer_that_waits_stops_at_once_with_exit_0() {
    let world = World::new().await;
    let filed = world.file(1).await;
    world.announce(&filed).await;
    let mut first = Consumer::start(&world, "one");
    world.wait_for(filed.return_id, "refunded").await;
    let _second = Consumer::start(&world, "two");
    assert!(first.logs(EVICTED).await, "the first one is evicted");
    let pid = first
        .child
        .id()
        .and_then(|id| Pid::from_raw(id.cast_signed()));
    kill_process(pid.expect("it runs"), Signal::TERM).expect("our child");
    let asked = Instant::now();
    assert!(first.logs("stopped").await);
    let status = first.child.wait().await.expect("our child");
    assert_eq!(status.code(), Some(0));
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
}
