//! Usage, exit codes and `healthcheck`.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Stdio;

use crate::harness::{expect_code, lists, returnsctl, run};

#[test]
fn help_lists_every_command_and_exit_code() {
    let ran = expect_code(0, &["--help"], &[]);
    for command in [
        "migrate",
        "topics",
        "seed",
        "token",
        "outbox",
        "returns",
        "refunds",
        "trace",
        "dead-letters",
        "dev-gateway",
        "status",
        "top",
        "doctor",
        "healthcheck",
    ] {
        assert!(lists(&ran.stdout, command), "{command}: {}", ran.stdout);
    }
    for code in ["0", "1", "2", "64"] {
        assert!(lists(&ran.stdout, code), "{code}: {}", ran.stdout);
    }
    assert_eq!(ran.stderr, "");
}

#[test]
fn version_is_printed() {
    let ran = expect_code(0, &["--version"], &[]);
    assert_eq!(
        ran.stdout,
        format!("returnsctl {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn bad_usage_ends_with_64() {
    for args in [&[][..], &["migrat"], &["seed", "--ordres", "1"], &["token"]] {
        let ran = expect_code(64, args, &[]);
        assert_eq!(ran.stdout, "", "{args:?}");
        assert_ne!(ran.stderr, "", "{args:?}");
    }
}

#[test]
fn every_bad_setting_is_listed() {
    let args = ["topics", "--partitions", "0", "--replication", "x"];
    let ran = expect_code(64, &args, &[("KAFKA_BROKERS", "nowhere")]);
    for part in ["--partitions", "--replication", "KAFKA_BROKERS"] {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
}

#[test]
fn contradicting_settings_are_an_error() {
    let variables = [
        ("DATABASE_URL", "mysql://u:s3cret@localhost/d"),
        ("KAFKA_BROKERS", "127.0.0.1:9092"),
        ("TOPIC_RETURNS", "same"),
        ("TOPIC_STATUS", "same"),
    ];
    let ran = expect_code(64, &["doctor"], &variables);
    assert!(ran.stderr.contains("must differ"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
}

#[test]
fn p13_a_bad_database_url_is_listed_with_other_problems_and_not_repeated() {
    let variables = [
        ("DATABASE_URL", "postgres://u:s3cret@h/d"),
        ("KAFKA_BROKERS", "nowhere"),
    ];
    let ran = expect_code(64, &["doctor"], &variables);
    assert!(ran.stderr.contains("mysql://"), "{}", ran.stderr);
    assert!(ran.stderr.contains("KAFKA_BROKERS"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
}

#[test]
fn a_reader_that_left_changes_no_exit_code() {
    let mut child = returnsctl(&["--help"], &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the built program runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn healthcheck_asks_livez() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a caller");
        // Reads to the end: closing a connection with unread bytes resets it, and the response is lost.
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a request");
            request.push(byte[0]);
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .expect("an answer");
        request
    });
    expect_code(0, &["healthcheck"], &[("OPS_LISTEN", &address)]);
    assert!(server.join().expect("served").starts_with(b"GET /livez "));
    // The listener is closed when its thread has ended.
    expect_code(1, &["healthcheck"], &[("OPS_LISTEN", &address)]);
}

#[test]
fn a_long_usage_line_is_broken() {
    let ran = expect_code(0, &["refunds", "retry", "--help"], &[]);
    let wide = ran.stdout.lines().find(|line| line.chars().count() > 80);
    assert_eq!(wide, None, "{}", ran.stdout);
    assert!(ran.stdout.contains("\nUsage: returnsctl refunds retry"));
}

/// Colors and cursor movements would be garbage in a file.
#[test]
fn output_into_a_pipe_has_no_control_characters() {
    let away = [
        ("DATABASE_URL", "mysql://u@127.0.0.1:1/d"),
        ("KAFKA_BROKERS", "127.0.0.1:1"),
        ("CLICOLOR_FORCE", "1"),
    ];
    for args in [
        &["--help"][..],
        &["refunds", "retry", "--help"],
        &["migrat"],
        &["seed", "--orders", "x"],
        &["outbox", "stats"],
        &["doctor"],
        &["status"],
        &["top", "--once"],
    ] {
        let ran = run(args, &away);
        for text in [&ran.stdout, &ran.stderr] {
            let controls = text.chars().filter(|c| c.is_control() && *c != '\n');
            assert_eq!(controls.count(), 0, "{args:?}: {text:?}");
        }
    }
}
