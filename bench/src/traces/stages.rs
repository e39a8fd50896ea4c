//! The programs of one run, and the settings of their traces.

use std::net::SocketAddr;

use e2e::program::Program;
use e2e::system::System;

use crate::api;
use crate::filing::load::Load;
use crate::filing::load::Orders;
use crate::tokens::Keys;

/// How many traces are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    All,
    Tenth,
    None,
}

impl Share {
    pub(super) const EACH: [Self; 3] = [Self::All, Self::Tenth, Self::None];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::All => "100 %",
            Self::Tenth => "10 %",
            Self::None => "off",
        }
    }

    fn settings(self, collector: SocketAddr) -> Vec<(&'static str, String)> {
        let ratio = match self {
            Self::All => "1",
            Self::Tenth => "0.1",
            Self::None => return Vec::new(),
        };
        vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}")),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".to_owned()),
            ("OTEL_TRACES_SAMPLER_ARG", ratio.to_owned()),
        ]
    }
}

/// A system whose api knows the keys of the load generator.
pub(super) struct Stages {
    pub(super) system: System,
    pub(super) api: Program,
    keys: Keys,
}

impl Stages {
    pub(super) async fn set(share: Share, collector: SocketAddr) -> anyhow::Result<Self> {
        let mut system = System::create().await?;
        // No scan claims what waits for its record.
        let grace = ("INITIATED_GRACE_SECS".to_owned(), "3600".to_owned());
        system.env.extend([grace]);
        let settings = share.settings(collector);
        let owned = settings.iter().cloned();
        system
            .env
            .extend(owned.map(|(name, value)| (name.to_owned(), value)));
        let keys = Keys::generate()?;
        let args = system.topic_args();
        let mut more = settings;
        more.push(("TOPIC_RETURNS", args.topic_returns));
        more.push(("TOPIC_STATUS", args.topic_status));
        let api = api::start(&system.db, &keys, &more).await?;
        Ok(Self { system, api, keys })
    }

    /// Filers of new orders, enough for so many seconds.
    pub(super) async fn load(
        &self,
        first_order: i64,
        connections: usize,
        seconds: u64,
    ) -> anyhow::Result<(Load, i64)> {
        let orders = Orders::seed_from(&self.system.db, first_order, connections, seconds).await;
        let next = orders.end();
        let load = Load::connect(self.api.api_address()?, &self.keys, orders).await?;
        Ok((load, next))
    }

    pub(super) async fn returns(&self) -> anyhow::Result<u64> {
        let count = self.system.count("SELECT COUNT(*) FROM returns").await?;
        Ok(u64::try_from(count)?)
    }
}
