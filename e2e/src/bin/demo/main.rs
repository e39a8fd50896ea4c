//! The demo: one return from HTTP request to refund, told on the terminal. `make demo` starts the servers.
#![expect(clippy::print_stdout, reason = "the demo talks to a person")]

mod story;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use e2e::client::Client;
use e2e::program::{Env, Program, run};
use shared::test_support::env;
use tokio::signal::unix::{SignalKind, signal};

/// Watch a return go through the whole system.
#[derive(Debug, Parser)]
#[command(name = "demo", version)]
struct Args {
    /// End after the story; non-zero if any step is missing or slower than 30 s.
    #[arg(long)]
    once: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match demo(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(args: &Args) -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let api = Program::start("returns-api", &stage.env).await?;
    let consumer = Program::start("refund-consumer", &stage.env).await?;
    let (relay, return_id) = story::tell(&stage, api.api_address()?).await?;
    if args.once {
        return Ok(());
    }
    let programs = [
        ("returns-api", api),
        ("outbox-relay", relay),
        ("refund-consumer", consumer),
    ];
    show_ways_in(&stage, &programs, return_id)?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    println!("\nStopping.");
    Ok(())
}

/// Everything that stands ready before the first request.
struct Stage {
    env: Env,
    customer: Client,
    customer_token: String,
    /// The first order that nobody has returned yet.
    order: i64,
}

impl Stage {
    async fn set() -> anyhow::Result<Self> {
        let ledger = PathBuf::from(env("STACK_DIR")).join("demo-ledger.jsonl");
        let mut vars: Env = [
            "DATABASE_URL",
            "KAFKA_BROKERS",
            "JWT_PRIVATE_KEY_FILE",
            "BISCUIT_PRIVATE_KEY_FILE",
            "AUTH_KEYS_FILE",
        ]
        .map(|name| (name.to_owned(), env(name)))
        .into();
        for (name, value) in [
            ("API_LISTEN", "127.0.0.1:0"),
            ("OPS_LISTEN", "127.0.0.1:0"),
            ("REFUND_GATEWAY", "simulated"),
            ("SIMULATED_LEDGER", &ledger.to_string_lossy()),
        ] {
            vars.insert(name.to_owned(), value.to_owned());
        }
        run("returnsctl", &["migrate"], &vars).await?;
        run("returnsctl", &["topics"], &vars).await?;
        let seed = ["seed", "--orders", "1000", "--customer", "42", "--json"];
        let seeded: serde_json::Value =
            serde_json::from_str(&run("returnsctl", &seed, &vars).await?)?;
        let mint = [
            "token", "mint", "--user", "42", "--role", "customer", "--ttl", "12h",
        ];
        let token = run("returnsctl", &mint, &vars).await?.trim().to_owned();
        Ok(Self {
            customer: Client::new(&token),
            customer_token: token,
            order: seeded["first_id"]
                .as_i64()
                .context("first_id of returnsctl seed")?,
            env: vars,
        })
    }
}

fn show_ways_in(stage: &Stage, programs: &[(&str, Program)], return_id: i64) -> anyhow::Result<()> {
    println!("\nEverything stays up. Ctrl-C stops it.\n");
    for (name, program) in programs {
        let ops = program.ops_address()?;
        println!("  {name:<16} http://{ops}/livez  /readyz  /metrics");
    }
    let (_, api) = &programs[0];
    let api = api.api_address()?;
    println!(
        "\nFile another return (order {} is free), and look at the first one:\n",
        stage.order + 2
    );
    println!(
        "  TOKEN={}\n  curl -i -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' \\\n       \
         -d '{{\"order_id\": {}, \"reason\": \"does not fit\"}}' http://{api}/returns\n  \
         curl -i -H \"Authorization: Bearer $TOKEN\" http://{api}/returns/{return_id}",
        stage.customer_token,
        stage.order + 2
    );
    println!("\nThe database: mysql URL {}", stage.env["DATABASE_URL"]);
    println!("Kafka:        {}", stage.env["KAFKA_BROKERS"]);
    Ok(())
}
