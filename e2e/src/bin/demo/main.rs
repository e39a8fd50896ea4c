//! The demo: one return from HTTP request to refund, shown step by step. `make demo` starts the servers.
#![expect(clippy::print_stdout, reason = "the demo talks to a person")]

mod next;
mod programs;
mod stage;
mod story;

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use programs::Programs;
use stage::Stage;
use story::Story;

/// Watch a return go through the whole system.
#[derive(Debug, Parser)]
#[command(name = "demo", version)]
struct Args {
    /// Stop after the story; the exit code is not 0 if a step is missing or takes longer than 30 s.
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
    let stage = Stage::prepare().await?;
    println!(
        "The programs write their logs to {}\n",
        stage.logs.display()
    );
    let mut programs = Programs::new(&stage);
    let api = programs.start("returns-api").await?.api_address()?;
    programs.start("refund-consumer").await?;

    let story = Story::new(&stage, api)?;
    println!("One return, step by step. The relay starts only after the outbox row was shown.");
    let filed = programs.watch(story.file_and_show_outbox()).await?;
    programs.start("outbox-relay").await?;
    programs.watch(story.follow(&filed)).await?;
    println!("\nAnother return, now that everything runs:");
    programs.watch(story.file_another()).await?;
    if args.once {
        return Ok(());
    }
    let waiting = programs.watch(story.file_for_review()).await?;
    next::show(&stage, &programs, api, waiting)?;
    programs.watch(until_interrupted()).await?;
    println!("\nStopping.");
    Ok(())
}

async fn until_interrupted() -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
