//! Refunds through a faulty payment provider, by consumers that are killed and frozen. The provider's ledger must have one
//! effect per return, whatever happened.

mod accounts;
mod crashes;
mod faults;
mod frozen;
mod operator;
mod reversed;
mod shop_sync;
mod suspended;
mod tampered;

use e2e::load::Writer;
use e2e::system::System;
use e2e::{checks, topic_check};
use shared::domain::ids::{OrderId, ReturnId};

/// A system with short deadlines and pauses for calls to the provider.
async fn quick() -> anyhow::Result<System> {
    let mut system = System::create().await?;
    for (name, value) in [
        ("CALL_DEADLINE_MS", "2000"),
        ("GATEWAY_CALL_TIMEOUT_MS", "500"),
        ("LOOKUP_BACKOFF_MS", "100"),
        ("LOOKUP_BACKOFF_MAX_MS", "1000"),
        ("GATEWAY_BREAKER_FAILURES", "1000"),
        ("RECONCILE_INTERVAL_MS", "200"),
    ] {
        system.env.insert(name.to_owned(), value.to_owned());
    }
    Ok(system)
}

/// Files returns for `count` new orders. Their messages come when a relay runs; after two seconds the reconciler claims the
/// returns without them.
async fn file(system: &System, first_order: i64, count: usize) -> anyhow::Result<Vec<ReturnId>> {
    let orders: Vec<OrderId> = (first_order..).map(OrderId).take(count).collect();
    Writer::connect(&system.db.pool.connect_options(), system.topic_args())
        .await?
        .file(&system.db, &orders)
        .await
}

/// The promises at the end of a test. The outbox must be empty.
async fn nothing_is_wrong(system: &System) -> anyhow::Result<()> {
    topic_check::check(system).await?;
    checks::one_effect_per_return(system).await?;
    checks::audit_is_complete(system).await
}
