//! How many connections a listener has, and how many had to go.

use prometheus::{IntCounter, IntGauge, Registry};

/// Counts the connections of one listener.
#[derive(Debug, Clone)]
pub struct Connections {
    /// `http_server_connections`.
    pub(super) open: IntGauge,
    /// `http_server_connections_evicted_total`: asked to go for a newcomer, as they waited for a request.
    pub(super) evicted: IntCounter,
}

impl Connections {
    /// Shown in `registry`.
    ///
    /// # Panics
    /// If `registry` has connections already.
    pub fn shown_in(registry: &Registry) -> Self {
        let connections = Self::default();
        for collector in [
            Box::new(connections.open.clone()) as Box<dyn prometheus::core::Collector>,
            Box::new(connections.evicted.clone()),
        ] {
            registry.register(collector).expect("registered once");
        }
        connections
    }
}

/// Shown nowhere.
impl Default for Connections {
    fn default() -> Self {
        let open = IntGauge::new("http_server_connections", "Connections that are open.");
        let evicted = IntCounter::new(
            "http_server_connections_evicted_total",
            "Connections without a request that were asked to go, as the cap was reached.",
        );
        Self {
            open: open.expect("a valid name"),
            evicted: evicted.expect("a valid name"),
        }
    }
}
