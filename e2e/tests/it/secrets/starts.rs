//! A program that does not start reports why, without repeating the setting that is wrong.

use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::program::{Env, run_to_end};

use super::fixture::Fixture;
use super::secret;

/// Longer than any program waits for a server.
const DEADLINE: Duration = Duration::from_secs(60);
const PROGRAMS: [(&str, &[&str]); 4] = [
    ("returns-api", &[]),
    ("outbox-relay", &[]),
    ("refund-consumer", &[]),
    ("returnsctl", &["refunds", "list"]),
];

async fn refuses(env: &Env, args: &[&str], code: Option<i32>) -> anyhow::Result<()> {
    let mut env = env.clone();
    env.insert("DATABASE_START_WAIT_SECS".to_owned(), "0".to_owned());
    for (name, usual) in PROGRAMS {
        let args = [usual, args].concat();
        let ended = tokio::time::timeout(DEADLINE, run_to_end(name, &args, &env));
        let ended = ended.await.with_context(|| name)??;
        let refused = !ended.status.success() && !ended.stderr.trim().is_empty();
        ensure!(refused, "{name}: {ended:?}");
        ensure!(
            code.is_none_or(|code| ended.status.code() == Some(code)),
            "{name}: {ended:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn p13_a_wrong_password_is_not_repeated() -> anyhow::Result<()> {
    let fixture = Fixture::create().await?;
    let mut env = fixture.system.env.clone();
    let url = env["DATABASE_URL"].replace("canary-p", &format!("{}-p", secret("password")));
    env.insert("DATABASE_URL".to_owned(), url);
    refuses(&env, &[], None).await
}

#[tokio::test]
async fn p13_a_url_that_is_none_is_not_repeated() -> anyhow::Result<()> {
    let fixture = Fixture::create().await?;
    for url in [
        "postgres://me:PASSWORD@host/db",
        "mysql://me:PASSWORD@host:port/db",
        "mysql://me:PASSWORD@host",
        "mysql://me:PASSWORD@127.0.0.1:1/db?ssl-mode=PASSWORD",
        "mysql://me:PASSWORD@127.0.0.1:1/db?PASSWORD=PASSWORD",
        "mysql://me:1/PASSWORD@host/db",
        "PASSWORD",
    ] {
        let mut env = fixture.system.env.clone();
        let url = url.replace("PASSWORD", &secret("password"));
        env.insert("DATABASE_URL".to_owned(), url.clone());
        refuses(&env, &[], None).await?;
        // Here clap writes the message, not our own code.
        refuses(&env, &["--no-such-flag"], Some(64)).await?;
        let flag = format!("--database-url={url}");
        refuses(&fixture.system.env, &[&flag, "--no-such-flag"], Some(64)).await?;
    }
    Ok(())
}

/// By default clap shows the value of each variable.
#[tokio::test]
async fn p13_help_shows_no_secret() -> anyhow::Result<()> {
    let fixture = Fixture::create().await?;
    let mut env = fixture.system.env.clone();
    env.insert("OPERATOR_TOKEN".to_owned(), secret("operator"));
    let decide = ("returnsctl", &["refunds", "retry"][..]);
    for (name, usual) in PROGRAMS.into_iter().chain([decide]) {
        let help = run_to_end(name, &[usual, &["--help"]].concat(), &env).await?;
        ensure!(help.stdout.contains("DATABASE_URL"), "{name}: {help:?}");
    }
    Ok(())
}

/// A login belongs into GATEWAY_TOKEN, but an operator may put it into the URL.
#[tokio::test]
async fn p13_a_login_in_the_gateways_url_is_not_repeated() -> anyhow::Result<()> {
    let fixture = Fixture::create().await?;
    let mut env = fixture.system.env.clone();
    env.insert("REFUND_GATEWAY".to_owned(), "http".to_owned());
    for url in [
        "https://me:PASSWORD@pay.example",
        "https://pay.example/?key=PASSWORD",
        "ftp://me:PASSWORD@pay.example",
        "https://me:PASSWORD@:port",
    ] {
        let url = url.replace("PASSWORD", &secret("login"));
        env.insert("GATEWAY_URL".to_owned(), url);
        let ended = run_to_end("refund-consumer", &[], &env).await?;
        ensure!(ended.status.code() == Some(64), "{ended:?}");
        ensure!(ended.stderr.contains("GATEWAY_URL"), "{ended:?}");
    }
    Ok(())
}
