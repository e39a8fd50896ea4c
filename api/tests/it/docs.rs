//! docs/SETTINGS.md and docs/METRICS.md say what the code does.

use api::config::Config;
use api::metrics::Metrics;
use clap::CommandFactory;
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
    let section = metrics::section("returns-api", &Metrics::new().descriptions());
    check_section("METRICS.md", &section);
}
