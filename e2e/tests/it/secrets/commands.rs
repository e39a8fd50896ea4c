//! `returnsctl` with valid and with broken files.

use std::path::Path;

use anyhow::ensure;
use e2e::program::{CommandResult, run, run_to_end};

use super::fixture::{Fixture, token};
use super::tokens::Shop;
use super::{canary, personal, secret};

#[tokio::test]
async fn p13_returnsctl_prints_a_token_only_where_it_makes_one() -> anyhow::Result<()> {
    let fixture = Fixture::create().await?;
    let env = &fixture.system.env;
    let shop = Shop(&fixture.shop_secret);
    let biscuit = token(&fixture.system, "biscuit", "customer").await?;
    let good = [
        token(&fixture.system, "jwt", "admin").await?,
        shop.token(&personal("jti"))?,
        biscuit.clone(),
    ];
    for token in &good {
        let file = fixture.file("token", token)?;
        let shown = of_token(&fixture, &["inspect"], &file).await?;
        ensure!(shown.status.success(), "{shown:?}");
        let revoked = of_token(
            &fixture,
            &["revoke", "--by", "j.doe", "--reason", "lost"],
            &file,
        );
        ensure!(revoked.await?.status.success());
    }
    let file = fixture.file("token", &biscuit)?;
    let narrow = ["attenuate", "--return", "1", "--read-only", "--ttl", "1h"];
    let narrowed = of_token(&fixture, &narrow, &file).await?;
    ensure!(narrowed.status.success(), "{}", narrowed.stderr);
    let file = fixture.file("narrowed", &narrowed.stdout)?;
    ensure!(
        of_token(&fixture, &["inspect"], &file)
            .await?
            .status
            .success()
    );
    let again = of_token(&fixture, &narrow, &file).await?;
    ensure!(!again.status.success(), "a sealed one was narrowed");
    for bad in shop.bad(&biscuit)? {
        let file = fixture.file("token", &bad)?;
        of_token(&fixture, &["inspect"], &file).await?;
        of_token(&fixture, &narrow, &file).await?;
        let revoke = ["revoke", "--by", "j.doe", "--reason", "lost"];
        of_token(&fixture, &revoke, &file).await?;
    }
    for args in [
        &["doctor"][..],
        &["doctor", "--json"],
        &["outbox", "stats"],
        &["refunds", "list"],
        &["token", "keygen", "--format", "jwt"],
    ] {
        run_to_end("returnsctl", args, env).await?;
    }
    let another = fixture.folder.path().join("another.pem");
    let another = another.to_string_lossy();
    let keygen = [
        "token",
        "keygen",
        "--format",
        "jwt",
        "--private-key-file",
        &another,
    ];
    run("returnsctl", &keygen, env).await?;
    Ok(())
}

async fn of_token(fixture: &Fixture, args: &[&str], file: &Path) -> anyhow::Result<CommandResult> {
    let file = file.to_string_lossy();
    let args = [&["token"], args, &["--token-file", &*file]].concat();
    run_to_end("returnsctl", &args, &fixture.system.env).await
}

#[tokio::test]
async fn p13_a_broken_key_file_is_not_repeated() -> anyhow::Result<()> {
    let fixture = Fixture::create().await?;
    let text = secret("key-file");
    let broken = fixture.file("broken", &format!("-----BEGIN PRIVATE KEY-----\n{text}\n"))?;
    let set = fixture.file(
        "set",
        &format!(r#"{{"keys": [{{"kty": "{text}", "kid": "{text}"}}]}}"#),
    )?;
    let mint = ["token", "mint", "--user", "42", "--role", "customer"];
    for (name, file) in [
        ("JWT_PRIVATE_KEY_FILE", &broken),
        ("AUTH_KEYS_FILE", &broken),
        ("AUTH_KEYS_FILE", &set),
    ] {
        let mut env = fixture.system.env.clone();
        env.insert(name.to_owned(), file.to_string_lossy().into_owned());
        env.insert("OPERATOR_TOKEN".to_owned(), canary("operator"));
        let doctor = run_to_end("returnsctl", &["doctor"], &env).await?;
        ensure!(doctor.stdout.contains(&env[name]), "{doctor:?}");
        let retry = [
            "refunds",
            "retry",
            "1",
            "--attempt",
            "1",
            "--reason",
            "why not",
        ];
        for args in [&mint[..], &retry] {
            let ended = run_to_end("returnsctl", args, &env).await?;
            ensure!(
                !ended.status.success() && !ended.stderr.is_empty(),
                "{ended:?}"
            );
        }
        if name == "AUTH_KEYS_FILE" {
            let api = run_to_end("returns-api", &[], &env).await?;
            ensure!(api.status.code() == Some(64), "{api:?}");
            ensure!(api.stderr.contains("AUTH_KEYS_FILE"), "{api:?}");
        }
    }
    Ok(())
}
