//! With bad settings or without the schema a program ends before it does anything.

use std::net::TcpListener;

use e2e::program::bin_dir;
use e2e::system::System;
use tokio::process::Command;

async fn output(name: &str, env: &[(&str, &str)]) -> anyhow::Result<(Option<i32>, String)> {
    let output = Command::new(bin_dir()?.join(name))
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .await?;
    Ok((output.status.code(), String::from_utf8(output.stderr)?))
}

#[tokio::test]
async fn every_bad_setting_is_listed_and_no_port_is_bound() -> anyhow::Result<()> {
    // The port is taken, so a program that bound it first would report that instead.
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    for (name, own) in [
        ("returns-api", ("FILING_BATCH_MAX", "0")),
        ("outbox-relay", ("POLL_MAX_MS", "x")),
        ("refund-consumer", ("CALL_DEADLINE_MS", "1")),
    ] {
        let env = [
            ("DATABASE_URL", "postgres://root:s3cret@nowhere/x"),
            ("KAFKA_BROKERS", "nowhere"),
            ("API_LISTEN", &address),
            ("OPS_LISTEN", &address),
            ("RUST_LOG", "info,=,"),
            own,
        ];
        let (code, stderr) = output(name, &env).await?;
        assert_eq!(code, Some(64), "{name}: {stderr}");
        assert!(
            stderr.contains(own.0),
            "{name} must name {}: {stderr}",
            own.0
        );
        for variable in ["DATABASE_URL", "RUST_LOG"] {
            assert!(
                stderr.contains(variable),
                "{name} must name {variable}: {stderr}"
            );
        }
        assert!(
            !stderr.contains("s3cret"),
            "{name} repeats a secret: {stderr}"
        );
        assert!(!stderr.contains("in use"), "{name} bound a port: {stderr}");
    }
    Ok(())
}

#[tokio::test]
async fn an_empty_database_names_the_command_to_run() -> anyhow::Result<()> {
    let system = System::create().await?;
    sqlx::query("DROP TABLE _sqlx_migrations")
        .execute(&system.db.pool)
        .await?;
    for name in ["returns-api", "outbox-relay", "refund-consumer"] {
        let env: Vec<(&str, &str)> = system
            .env
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .chain([("DATABASE_START_WAIT_SECS", "0")])
            .collect();
        let (code, stderr) = output(name, &env).await?;
        assert_eq!(code, Some(1), "{name}: {stderr}");
        assert!(stderr.contains("returnsctl migrate"), "{name}: {stderr}");
    }
    Ok(())
}
