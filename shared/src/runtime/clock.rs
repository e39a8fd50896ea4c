//! The one place that reads this machine's wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix seconds of this machine, for times that other parties have written. Due times and leases use the database's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place, for times that come from neither the database nor this process"
)]
pub fn unix_secs() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970")
        .as_secs()
}
