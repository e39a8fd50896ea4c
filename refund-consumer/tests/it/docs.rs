//! docs/SETTINGS.md and docs/METRICS.md are generated from the code.

use clap::CommandFactory;
use refund_consumer::config::Config;
use refund_consumer::metrics::Metrics;
use shared::runtime::db::DbMetrics;
use shared::runtime::program::Cli;
use shared::runtime::{metrics, settings};
use shared::test_support::docs::check_section;

#[test]
fn every_setting_is_documented() {
    let command = Cli::<Config>::command();
    check_section("SETTINGS.md", &settings::section(&command));
}

#[test]
fn every_metric_is_documented() {
    let set = Metrics::new().set;
    DbMetrics::new(&set);
    let section = metrics::section("refund-consumer", &set.descriptions());
    check_section("METRICS.md", &section);
}
