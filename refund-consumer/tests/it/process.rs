//! The built program, as people and scripts use it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal};
use shared::test_support::env;

use crate::harness::World;

fn run(settings: &[(&str, &str)], args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_refund-consumer"))
        .env_clear()
        .envs(settings.iter().copied())
        .args(args)
        .output()
        .expect("the program starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_bad_setting_is_reported_before_anything_is_opened() {
    let output = run(
        &[
            ("DATABASE_URL", "mysql://root@localhost/x"),
            ("CONSUMER_BATCH_MAX", "0"),
            ("CALL_DEADLINE_MS", "soon"),
            ("REFUND_GATEWAY", "piggy-bank"),
        ],
        &[],
    );
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(64), "{text}");
    for name in [
        "CONSUMER_BATCH_MAX",
        "CALL_DEADLINE_MS",
        "REFUND_GATEWAY",
        "KAFKA_BROKERS",
    ] {
        assert!(text.contains(name), "{name} is missing in: {text}");
    }
}

#[test]
fn relations_between_settings_are_reported_too() {
    let output = run(
        &[
            ("DATABASE_URL", "mysql://root:s3cret@localhost/x"),
            ("KAFKA_BROKERS", "localhost:9092"),
            ("REFUND_GATEWAY", "simulated"),
            ("DATABASE_MAX_CONNECTIONS", "1"),
        ],
        &[],
    );
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(
        text.contains("SIMULATED_LEDGER") && text.contains("DATABASE_MAX_CONNECTIONS"),
        "{text}"
    );
    assert!(!text.contains("s3cret"), "{text}");
}

#[test]
fn a_database_without_schema_is_a_failed_start_that_names_the_command() {
    let server = env("DATABASE_URL");
    let (server, _) = server.split_once('?').unwrap_or((&server, ""));
    let (server, _) = server.rsplit_once('/').expect("a database");
    // It exists in every MySQL, and never has our schema.
    let url = format!("{server}/information_schema?ssl-mode=DISABLED");
    let dir = tempfile::tempdir().expect("a folder");
    let ledger = dir.path().join("ledger").display().to_string();
    let output = run(
        &[
            ("DATABASE_URL", &url),
            ("KAFKA_BROKERS", &env("KAFKA_BROKERS")),
            ("REFUND_GATEWAY", "simulated"),
            ("SIMULATED_LEDGER", &ledger),
            ("DATABASE_START_WAIT_SECS", "0"),
        ],
        &[],
    );
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("returnsctl migrate"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn help_and_version_need_no_settings() {
    for flag in ["--help", "--version"] {
        let output = run(&[], &[flag]);
        assert_eq!(output.status.code(), Some(0), "{flag}");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("refund-consumer"),
            "{flag}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p11_sigterm_ends_it_with_exit_0() {
    let world = World::new().await;
    let filed = world.file(1).await;
    world.announce(&filed).await;
    let args = world.args(&[]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_refund-consumer"))
        .args(&args[1..])
        .env("LOG_FORMAT", "json")
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut log = BufReader::new(child.stderr.take().expect("piped")).lines();
    let address = tokio::task::block_in_place(|| {
        let started = log.find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(&line.expect("text")).expect("JSON");
            (line["message"] == "listening").then_some(line)
        });
        started.expect("a start line")["ops.address"]
            .as_str()
            .expect("an address")
            .to_owned()
    });
    world.wait_for(filed.return_id, "refunded").await;

    let healthcheck = |address: &str| {
        let mut args = args.clone();
        args.push(format!("--ops-listen={address}"));
        args.push("healthcheck".to_owned());
        let settings = [("RUST_LOG", "info")];
        let args: Vec<&str> = args[1..].iter().map(String::as_str).collect();
        run(&settings, &args).status.code()
    };
    assert_eq!(healthcheck(&address), Some(0));
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("not zero");
    rustix::process::kill_process(pid, Signal::TERM).expect("our child");
    let status = tokio::task::block_in_place(|| {
        // It reads on, because the program would block on a full pipe.
        let rest: Vec<String> = log.map(|line| line.expect("text")).collect();
        assert!(rest.iter().any(|line| line.contains("stopped")), "{rest:?}");
        child.wait().expect("our child")
    });
    assert_eq!(status.code(), Some(0));
    assert_eq!(healthcheck(&address), Some(1));
}
