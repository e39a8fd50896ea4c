//! `refund-consumer`: settings, connections, run, drain, exit code.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use refund_consumer::config::{Cli, Command, Config, GatewayArgs, GatewayKind};
use refund_consumer::gateway::RefundGateway;
use refund_consumer::gateway::http::Http;
use refund_consumer::gateway::simulated::Simulated;
use refund_consumer::{Drain, RefundConsumer};
use shared::runtime::settings::{self, Refused};
use shared::runtime::{killpoint, ops, shutdown, telemetry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

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
    match cfg.gateway.refund_gateway {
        GatewayKind::Simulated => {
            let gateway = simulated(&cfg.gateway)?;
            run(cfg, gateway, ops_listener, stop).await
        }
        GatewayKind::Http => {
            let gateway = http(&cfg)?;
            run(cfg, gateway, ops_listener, stop).await
        }
    }
}

async fn run<G: RefundGateway>(
    cfg: Config,
    gateway: G,
    ops_listener: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let ops_address = ops_listener.local_addr()?;
    let consumer = RefundConsumer::build(cfg.clone(), gateway, ops_listener, stop).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        ops.address = %ops_address,
        config = ?cfg,
        "listening"
    );
    match consumer.run().await? {
        Drain::Complete => tracing::info!("stopped"),
        Drain::LeftOpen(attempts) => {
            tracing::warn!(
                attempts,
                "stopped with attempts in flight; other consumers take them over"
            );
        }
    }
    Ok(())
}

fn http(cfg: &Config) -> anyhow::Result<Http> {
    let args = &cfg.gateway.http;
    let url = args
        .gateway_url
        .clone()
        .context("GATEWAY_URL is required")?;
    let calls = usize::from(cfg.pay.gateway_parallel_calls);
    Http::new(url, args, calls).context("cannot set up TLS")
}

fn simulated(args: &GatewayArgs) -> anyhow::Result<Simulated> {
    let path = args
        .simulated_ledger
        .as_deref()
        .context("SIMULATED_LEDGER is required")?;
    tracing::warn!(ledger = %path.display(), "the simulated gateway is for demonstrations: it moves no money");
    Simulated::open(
        path,
        Duration::from_millis(args.simulated_delay_ms),
        args.simulated_fsync,
    )
    .with_context(|| format!("cannot use SIMULATED_LEDGER {}", path.display()))
}
