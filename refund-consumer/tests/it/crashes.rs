//! The built program, killed at each named point as by `kill -9`; needs the feature `failpoints`.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use crate::harness::{World, until};

const SIGKILL: i32 = 9;

const POINTS: [&str; 7] = [
    "consumer.after_poll",
    "consumer.after_claim",
    "consumer.before_call",
    "consumer.after_call",
    "consumer.before_settle",
    "consumer.before_settle_commit",
    "consumer.after_settle",
];

/// Starts the program armed at `point` and waits for its end.
async fn crash(world: &World, point: &str) {
    let args = world.args(&["--call-deadline-ms=3000"]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_refund-consumer"))
        .args(&args[1..])
        .env("FAILPOINTS", format!("{point}=return"))
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let status = loop {
        if let Some(status) = child.try_wait().expect("our child") {
            break status;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(status.signal(), Some(SIGKILL), "{point}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_crash_at_any_point_ends_in_one_effect_and_one_record_per_step() {
    for point in POINTS {
        let world = World::new().await;
        let filed = world.file(1).await;
        world.announce(&filed).await;
        crash(&world, point).await;
        // Another group, so that the dead member's partitions need not time out first; no scan for new returns.
        let flags = [
            "--consumer-group=it-successor",
            "--initiated-grace-secs=3600",
        ];
        let successor = world.start(world.simulated(), &flags).await;
        world.wait_for(filed.return_id, "refunded").await;
        until("the message was read again", || async {
            // It is left to the scan if the settlement holds the order.
            let results = ["claimed", "already_moved", "left"];
            let read: u64 = results
                .iter()
                .map(|result| successor.messages(result))
                .sum();
            (read == 1).then_some(())
        })
        .await;
        assert_eq!(world.effects(), 1, "{point}");
        assert_eq!(world.audited(filed.return_id).await.len(), 4, "{point}");
        assert_eq!(
            world.refunded_amount(filed.order_id).await,
            "49.9000",
            "{point}"
        );
        successor.stop().await;
    }
}
