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
    let relay = Relay::connect(cfg, publisher).await?;
    start.announce(None);
    relay.run(start.ops_listener, start.stop).await?;
    Ok(())
}
