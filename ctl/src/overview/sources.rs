//! Where an overview comes from.

use reqwest::Url;
use shared::domain::event::TopicArgs;
use shared::runtime::db::DbArgs;
use shared::runtime::kafka::KafkaArgs;

use crate::consumer_group::GroupArgs;
use crate::error::CtlError;
use crate::http::parse_url;

// No doc comment: clap would show it as the text of every command that flattens this.
#[derive(Debug, Clone, clap::Args)]
#[command(mut_arg("database_max_connections", |arg| arg.hide(true)))]
pub(crate) struct SourceArgs {
    #[command(flatten)]
    pub(super) db: DbArgs,

    #[command(flatten)]
    pub(super) kafka: KafkaArgs,

    #[command(flatten)]
    pub(super) topics: TopicArgs,

    #[command(flatten)]
    pub(super) group: GroupArgs,

    /// Addresses of the programs' operator ports (their OPS_LISTEN), separated by commas: for the apis, and for rates,
    /// errors and topics in trouble. Without them these are not known.
    #[arg(long, env = "OPS_ADDRESSES", value_name = "HOST:PORT", value_delimiter = ',', value_parser = parse_address)]
    pub(super) ops: Vec<String>,

    /// Base URL of the Prometheus that has the alerts, such as `http://prometheus:9090`. Without it no alerts are shown.
    #[arg(
        long,
        env = "PROMETHEUS_URL",
        value_name = "URL",
        hide_env_values = true,
        value_parser = |text: &str| parse_url("PROMETHEUS_URL", text)
    )]
    pub(super) prometheus_url: Option<Url>,
}

impl SourceArgs {
    /// Whether programs are asked, whose counters make rates.
    pub(crate) fn has_programs(&self) -> bool {
        !self.ops.is_empty()
    }

    /// # Errors
    /// Settings that contradict each other.
    pub(crate) fn check(&self) -> Result<(), CtlError> {
        let mut problems = self.topics.problems();
        problems.extend(self.db.options().err());
        if problems.is_empty() {
            Ok(())
        } else {
            Err(CtlError::Usage(problems))
        }
    }
}

fn parse_address(text: &str) -> Result<String, String> {
    let valid = text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if valid {
        Ok(text.to_owned())
    } else {
        Err("expected host:port[,host:port…]".to_owned())
    }
}
