//! The metrics of one listener.

use prometheus::{IntCounter, IntGauge};

use crate::runtime::metrics::MetricSet;

/// How many connections are open, and how many were evicted.
#[derive(Debug, Clone)]
pub struct ConnectionMetrics {
    pub(super) open: IntGauge,
    pub(super) evicted: IntCounter,
}

impl ConnectionMetrics {
    /// # Panics
    /// If `set` already has them.
    pub fn new(set: &MetricSet) -> Self {
        Self {
            open: set.gauge("http_server_connections", "Connections that are open"),
            evicted: set.counter(
                "http_server_connections_evicted_total",
                "Idle connections that were closed to make room for new ones at the connection limit",
            ),
        }
    }
}

/// Not exported.
impl Default for ConnectionMetrics {
    fn default() -> Self {
        Self::new(&MetricSet::new())
    }
}
