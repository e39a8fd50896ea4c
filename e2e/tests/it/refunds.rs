//! Refunds through a payment provider that misbehaves, by consumers that are killed and frozen. What counts is the
//! provider's ledger: one effect per return, whatever happened.

mod crashes;
mod faults;
mod frozen;
mod operator;
mod tampered;

use e2e::checks;
use e2e::load::Writer;
use e2e::system::System;
use shared::domain::ids::{OrderId, ReturnId};

/// A system on which everything about a call is quick.
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

/// Files a return for each of so many new orders; messages come once a relay runs, and after two seconds the
/// reconciler does not wait for them.
async fn file(system: &System, first_order: i64, count: usize) -> anyhow::Result<Vec<ReturnId>> {
    let orders: Vec<OrderId> = (first_order..).map(OrderId).take(count).collect();
    Writer::connect(&system.db.pool.connect_options(), system.topic_args())
        .await?
        .file(&system.db, &orders)
        .await
}

/// What must hold at the end, whatever went wrong: needs an empty outbox.
async fn nothing_is_wrong(system: &System) -> anyhow::Result<()> {
    checks::log_matches_events(system).await?;
    checks::one_effect_per_return(system).await?;
    checks::audit_is_complete(system).await
}
