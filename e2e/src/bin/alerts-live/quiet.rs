//! A system without trouble, under paced load.

use std::time::Duration;

use anyhow::ensure;
use e2e::provider::Provider;
use e2e::system::System;
use tokio::time::{Instant, interval};

use crate::watched::{API, CONSUMER, RELAY, Row, Watched};

/// No alert fires, not even for a moment.
pub(crate) async fn nothing_fires(minutes: u32, per_second: u32) -> anyhow::Result<Vec<Row>> {
    let mut system = System::create().await?;
    let _provider = Provider::start(&mut system, &[]).await?;
    let watched = Watched::start(system).await?;
    let api = watched.program(API).await?;
    let _relay = watched.program(RELAY).await?;
    let _consumer = watched.program(CONSUMER).await?;
    watched.is_scraped(&[API, RELAY, CONSUMER]).await?;
    let end = Instant::now() + Duration::from_secs(60) * minutes;
    let mut pace = interval(Duration::from_secs(1) / per_second);
    let mut order = 0;
    while Instant::now() < end {
        pace.tick().await;
        order += 1;
        watched.file(&api, order..=order).await?;
    }
    let open = "SELECT COUNT(*) FROM returns WHERE status <> 'refunded' AND created_at < NOW() - INTERVAL 30 SECOND";
    ensure!(watched.system.count(open).await? == 0, "returns wait");
    let fired = watched.fired_within(minutes).await?;
    ensure!(fired.is_empty(), "without trouble: {fired:?}");
    println!("{order} returns in {minutes} minutes without trouble: no alert");
    Ok(Vec::new())
}
