//! `outbox-relay`: moves outbox rows to Kafka.

use std::process::ExitCode;

use relay::Relay;
use relay::config::Config;
use relay::publisher::kafka::KafkaPublisher;
use shared::runtime::program::{self, Start};

fn main() -> ExitCode {
    program::main(run)
}

async fn run(cfg: Config, start: Start) -> anyhow::Result<()> {
    let publisher = KafkaPublisher::new(&cfg.kafka);
    let database = cfg.db.clone();
    let relay = Relay::new(cfg, publisher)?;
    let registry = relay.metrics().registry();
    let checked = start.when_mysql_is_ready(&database, registry, async || relay.check().await);
    if checked.await?.is_none() {
        return Ok(());
    }
    start.announce(None);
    relay.run(start.ops_listener, start.stop).await?;
    Ok(())
}
