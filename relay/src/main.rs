//! `outbox-relay`: settings, connections, run, drain, exit code.

use std::process::ExitCode;

use anyhow::Context;
use relay::config::{Cli, Command, Config};
use relay::publisher::Kafka;
use relay::{Drain, Relay};
use shared::runtime::settings::{self, Refused};
use shared::runtime::{killpoint, ops, shutdown, telemetry};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> ExitCode {
    let _armed = killpoint::arm();
    let cli: Cli = match settings::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(refused) => return refused.print(),
    };
    if let Some(Command::Healthcheck) = cli.command {
        let alive = ops::healthcheck(cli.config.ops.ops_listen);
        return ExitCode::from(u8::from(!alive));
    }
    let problems = cli.config.problems();
    if !problems.is_empty() {
        return Refused::listing(&problems).print();
    }
    telemetry::init(&cli.config.log);
    match serve(cli.config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cannot go on");
            ExitCode::FAILURE
        }
    }
}

async fn serve(cfg: Config) -> anyhow::Result<()> {
    let stop = shutdown::on_signal()?;
    let ops_listener = TcpListener::bind(cfg.ops.ops_listen)
        .await
        .with_context(|| format!("cannot listen on OPS_LISTEN {}", cfg.ops.ops_listen))?;
    let ops_address = ops_listener.local_addr()?;
    let relay = Relay::build(cfg.clone(), Kafka::new(&cfg.kafka), ops_listener).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        ops.address = %ops_address,
        config = ?cfg,
        "listening"
    );
    match relay.run(stop).await? {
        Drain::Complete => tracing::info!("stopped"),
        Drain::LeftInFlight(rows) => {
            tracing::warn!(
                rows,
                "stopped at the drain deadline; rows in flight stay in the outbox"
            );
        }
    }
    Ok(())
}
