//! The demo: one return from HTTP request to refund, shown step by step. `make demo` starts the servers.
#![expect(clippy::print_stdout, reason = "the demo talks to a person")]

mod next;
mod programs;
mod stage;
mod story;
mod traces;

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use programs::Programs;
use stage::Stage;
use story::Story;
use traces::Traces;

/// Watch a return go through the whole system.
#[derive(Debug, Parser)]
#[command(name = "demo", version)]
struct Args {
    /// Stop after the story; the exit code is not 0 if a step is missing or takes longer than 30 s.
    #[arg(long)]
    once: bool,

    /// Send the traces to this collector; the demo then prints where to look at them.
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        hide_env_values = true,
        value_name = "URL"
    )]
    otel_exporter_otlp_endpoint: Option<String>,

    /// Where the pages of that collector's Jaeger are.
    #[arg(
        long,
        env = "TRACE_QUERY_URL",
        hide_env_values = true,
        value_name = "URL",
        default_value = "http://localhost:16686"
    )]
    trace_query_url: String,
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
    let mut stage = Stage::prepare().await?;
    let traces = Traces::to(
        args.otel_exporter_otlp_endpoint.as_deref(),
        &args.trace_query_url,
    )
    .await?;
    stage.env.extend(traces.variables());
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
    programs.watch(traces.show(&story, &filed)).await?;
    if args.once {
        return Ok(());
    }
    let waiting = programs.watch(story.file_for_review()).await?;
    next::show(&stage, &programs, api, waiting, &traces)?;
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
