//! The cost of an idle relay.

use std::time::Duration;

use super::RelayArgs;
use super::stage::Stage;
use super::usage::{Usage, peak_mib};
use crate::process::Servers;
use crate::report;

const WARM_UP: Duration = Duration::from_secs(2);

pub(super) async fn run(args: &RelayArgs, servers: &Servers) -> anyhow::Result<bool> {
    let stage = Stage::set().await?;
    let relays = stage.relays(1).await?;
    tokio::time::sleep(WARM_UP).await;
    let (before, queries_before) = (Usage::now(&relays, servers)?, queries(&stage).await?);
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let usage = Usage::now(&relays, servers)?.since(before);
    // The second reading counts itself and the statement before it.
    let queries = queries(&stage).await?.saturating_sub(queries_before + 2);
    let seconds = Duration::from_secs(args.seconds).as_secs_f64();
    let per_second = u32::try_from(queries).map_or(f64::NAN, f64::from) / seconds;
    let line = format!(
        "| {per_second:.1} | {} | {} |",
        usage.per(seconds / 100.0),
        peak_mib(&relays)?
    );
    relays.stop().await?;
    report::table(
        "Idle: one relay that owns all shards, no event",
        "| queries/s | CPU % of a core: relay / mysqld / Kafka | peak MiB of the relay |",
        &[line],
    );
    Ok(true)
}

/// Statements that the server has executed for all clients.
async fn queries(stage: &Stage) -> anyhow::Result<u64> {
    let (_, value): (String, String) = sqlx::query_as("SHOW GLOBAL STATUS LIKE 'Questions'")
        .fetch_one(&stage.system.db.pool)
        .await?;
    Ok(value.parse()?)
}
