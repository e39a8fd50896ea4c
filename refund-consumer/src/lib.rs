//! Pays approved returns back: claim, pay, settle, reconcile.
//!
//! Owns the table `refunds`. Must stay true: a message only says *which* return to look at, everything is decided on
//! locked rows; a committed claim drives everything after it; at most one refund effect per return at the gateway.
//! Messages arrive at least once and are deduplicated by event id.

pub mod config;
pub mod error;

pub mod app;

pub mod claim;
pub mod dead_letter;
pub mod intake;
pub mod lag;
pub mod message;

pub mod attempt;
pub mod batcher;
pub mod gateway;
pub mod open_attempts;
pub mod refund;

pub mod settle;

pub mod expiry;
pub mod floors;
pub mod foreign;
pub mod gauges;
pub mod reconcile;

pub mod metrics;
mod spans;
pub mod stages;
pub mod store;
mod transact;

use std::time::Duration;

use shared::runtime::program::Start;

use app::{Drain, RefundConsumer};
use config::{Config, GatewayKind};
use error::Error;
use gateway::RefundGateway;
use gateway::http::Http;
use gateway::simulated::Simulated;

/// The program.
///
/// # Errors
/// It could not start, or a task ended early.
pub async fn run(cfg: Config, start: Start) -> Result<(), Error> {
    match cfg.gateway.refund_gateway {
        GatewayKind::Simulated => {
            let gateway = simulated(&cfg)?;
            serve(cfg, gateway, start).await
        }
        GatewayKind::Http => {
            let gateway = http(&cfg)?;
            serve(cfg, gateway, start).await
        }
    }
}

async fn serve<G: RefundGateway>(cfg: Config, gateway: G, start: Start) -> Result<(), Error> {
    let database = cfg.db.clone();
    let consumer = RefundConsumer::new(cfg, gateway, start.stop.clone())?;
    let metrics = consumer.metrics();
    let registry = metrics.set.registry();
    let checked = start.when_mysql_is_ready(&database, registry, async || consumer.check().await);
    if checked.await?.is_none() {
        return Ok(());
    }
    start.announce(None);
    match consumer.run(start.ops_listener).await? {
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

fn http(cfg: &Config) -> Result<Http, Error> {
    let args = &cfg.gateway.http;
    let required = |name: &str| Error::Setting(format!("{name} is required"));
    let name = args.gateway_name.clone();
    let name = name.ok_or_else(|| required("GATEWAY_NAME"))?;
    let url = args.gateway_url.clone();
    let url = url.ok_or_else(|| required("GATEWAY_URL"))?;
    let calls = usize::from(cfg.pay.gateway_parallel_calls);
    Http::new(name, url, args, calls).map_err(Error::Tls)
}

fn simulated(cfg: &Config) -> Result<Simulated, Error> {
    let args = &cfg.gateway;
    let path = args.simulated_ledger.as_deref();
    let path = path.ok_or_else(|| Error::Setting("SIMULATED_LEDGER is required".to_owned()))?;
    tracing::warn!(ledger = %path.display(), "the simulated gateway is for demonstrations: it moves no money");
    let delay = Duration::from_millis(args.simulated_delay_ms);
    let opened = Simulated::open(path, delay, args.simulated_fsync);
    opened.map_err(|source| Error::Ledger {
        path: path.display().to_string(),
        source,
    })
}
