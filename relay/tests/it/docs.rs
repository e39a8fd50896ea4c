//! docs/SETTINGS.md and docs/METRICS.md are generated from the code.

use clap::CommandFactory;
use relay::config::Config;
use relay::metrics::Metrics;
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
    let descriptions = Metrics::new().descriptions();
    let section = metrics::section("outbox-relay", &descriptions);
    check_section("METRICS.md", &section);
}
