//! A server that listens on an IPv6 address alone, with a certificate for that address.

use std::path::Path;

use anyhow::ensure;
use e2e::program::run_to_end;
use e2e::stack::PrivateMysql;
use e2e::system::System;
use shared::test_support::TestDb;
use tokio::process::Command;

use crate::EXCLUSIVE;

/// A key, and a certificate that is its own authority.
async fn certificate(folder: &Path, address: &str) -> anyhow::Result<(String, String)> {
    let file = |name: &str| folder.join(name).display().to_string();
    let (key, certificate) = (file("key.pem"), file("certificate.pem"));
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args(["-subj", "/CN=mysql", "-addext"])
        .arg(format!("subjectAltName=IP:{address}"))
        .args(["-keyout", &key, "-out", &certificate])
        .output()
        .await?;
    ensure!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    Ok((key, certificate))
}

#[tokio::test]
async fn p13_an_ipv6_address_is_compared_with_the_certificate() -> anyhow::Result<()> {
    let _exclusive = EXCLUSIVE.lock().await;
    let folder = tempfile::TempDir::new()?;
    let (key, right) = certificate(folder.path(), "::1").await?;
    let accounts = folder.path().join("accounts.sql");
    std::fs::write(
        &accounts,
        "CREATE USER root@'::1'; GRANT ALL ON *.* TO root@'::1' WITH GRANT OPTION;\n",
    )?;
    let options = [
        "--bind-address=::1".to_owned(),
        format!("--init-file={}", accounts.display()),
        format!("--ssl-ca={right}"),
        format!("--ssl-cert={right}"),
        format!("--ssl-key={key}"),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mysql = PrivateMysql::start("e2e-ipv6", &options).await?;
    let url = mysql.url.replace("127.0.0.1", "[::1]");
    let url = url.replace(
        "ssl-mode=DISABLED",
        &format!("ssl-mode=VERIFY_IDENTITY&ssl-ca={right}"),
    );
    let system = System::create_in(TestDb::create_on(&url).await).await?;
    for name in ["returns-api", "outbox-relay", "refund-consumer"] {
        drop(system.start(name).await?);
    }
    let doctor = run_to_end("returnsctl", &["doctor"], &system.env).await?;
    let connected = "ok    mysql connection: connected";
    ensure!(doctor.stdout.contains(connected), "{}", doctor.stdout);

    let other = tempfile::TempDir::new()?;
    let (_, wrong) = certificate(other.path(), "::2").await?;
    let mut env = system.env.clone();
    let url = system.db.url().replace(&right, &wrong);
    env.insert("DATABASE_URL".to_owned(), url);
    let refused = run_to_end("returnsctl", &["doctor"], &env).await?;
    ensure!(!refused.stdout.contains(connected), "{}", refused.stdout);
    Ok(())
}
