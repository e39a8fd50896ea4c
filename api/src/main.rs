//! `returns-api`: settings, connections, run, drain, exit code.

use std::process::ExitCode;

use anyhow::Context;
use api::App;
use api::config::{Cli, Command, Config};
use api::open_files;
use shared::runtime::http_server::Drain;
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
            tracing::error!(error = format!("{error:#}"), "failed");
            ExitCode::FAILURE
        }
    }
}

async fn serve(cfg: Config) -> anyhow::Result<()> {
    let stop = shutdown::on_signal()?;
    open_files::allow(cfg.http.api_max_connections);
    let listener = TcpListener::bind(cfg.http.api_listen)
        .await
        .with_context(|| format!("cannot listen on API_LISTEN {}", cfg.http.api_listen))?;
    let ops_listener = TcpListener::bind(cfg.ops.ops_listen)
        .await
        .with_context(|| format!("cannot listen on OPS_LISTEN {}", cfg.ops.ops_listen))?;
    let (address, ops_address) = (listener.local_addr()?, ops_listener.local_addr()?);
    let app = App::build(cfg.clone(), listener, ops_listener).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        api.address = %address,
        ops.address = %ops_address,
        config = ?cfg,
        "listening"
    );
    match app.run(stop).await? {
        Drain::Complete => tracing::info!("stopped"),
        Drain::DeadlineMissed => {
            tracing::warn!("stopped with connections still open at the drain deadline");
        }
    }
    Ok(())
}
