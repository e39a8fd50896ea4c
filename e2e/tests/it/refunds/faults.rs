//! Each fault of a provider, alone and mixed.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::provider::{self, Provider};
use e2e::system::System;
use e2e::{ledger, until};
use shared::domain::ids::ReturnId;

use super::{file, nothing_is_wrong, quick};

const DEADLINE: Duration = Duration::from_secs(180);
pub(crate) const EACH: usize = 4;

/// The faults of the first calls about a return, its end with and without idempotency keys.
struct Case {
    submit: &'static [&'static str],
    find: &'static [&'static str],
    with_keys: End,
    without_keys: End,
}

/// Status of the return, state of its attempt, and number of payments.
type End = (&'static str, &'static str, u32);

const REFUNDED: End = ("refunded", "succeeded", 1);
const DECLINED: End = ("refund_failed", "declined", 0);
const PARKED_UNPAID: End = ("refund_pending", "parked", 0);
const PARKED_PAID: End = ("refund_pending", "parked", 1);

/// docs/GATEWAY.md: without keys, an attempt that may have been paid and is not found is parked.
const CASES: [Case; 13] = [
    case(&["timeout-before"], &[], REFUNDED, PARKED_UNPAID),
    case(&["timeout-after"], &[], REFUNDED, REFUNDED),
    case(&["reset"], &[], REFUNDED, REFUNDED),
    case(&["server-error"], &[], REFUNDED, PARKED_UNPAID),
    case(&["server-error-after"], &[], REFUNDED, REFUNDED),
    case(&["too-many-requests"], &[], REFUNDED, REFUNDED),
    case(&["in-progress"], &[], REFUNDED, PARKED_UNPAID),
    case(&["decline"], &[], DECLINED, DECLINED),
    case(&["slow-body"], &[], REFUNDED, REFUNDED),
    case(&["wrong-amount"], &[], REFUNDED, REFUNDED),
    case(
        &["wrong-amount"],
        // An attempt that had to wait is also looked up before its first call.
        &["wrong-amount"; 9],
        PARKED_PAID,
        PARKED_PAID,
    ),
    case(
        &["timeout-after"],
        &["timeout-before", "server-error", "reset"],
        REFUNDED,
        REFUNDED,
    ),
    case(
        &["timeout-before", "server-error", "reset"],
        &["slow-body"],
        REFUNDED,
        PARKED_UNPAID,
    ),
];

const fn case(
    submit: &'static [&'static str],
    find: &'static [&'static str],
    with_keys: End,
    without_keys: End,
) -> Case {
    Case {
        submit,
        find,
        with_keys,
        without_keys,
    }
}

#[tokio::test]
async fn p5_p6_each_fault_of_a_provider_ends_as_documented() -> anyhow::Result<()> {
    each_fault(&[], |case| case.with_keys).await
}

#[tokio::test]
async fn p5_p6_each_fault_of_a_provider_without_keys_ends_as_documented() -> anyhow::Result<()> {
    each_fault(&["--no-idempotency-keys"], |case| case.without_keys).await
}

async fn each_fault(flags: &[&str], end: impl Fn(&Case) -> End) -> anyhow::Result<()> {
    let mut system = quick().await?;
    let flags = [&["--hang-ms=3000"], flags].concat();
    let provider = Provider::start(&mut system, &flags).await?;
    let returns = file(&system, 1, CASES.len() * EACH).await?;
    let mut expected = HashMap::new();
    for (case, ids) in CASES.iter().zip(returns.chunks(EACH)) {
        for id in ids {
            let key = provider::key(&system, *id, 1).await?;
            provider.script(&key, case.submit, case.find).await?;
            expected.insert(*id, end(case));
        }
    }
    let _relay = system.start("outbox-relay").await?;
    let _consumer = system.start("refund-consumer").await?;
    all_ended(&system, &expected).await?;
    nothing_is_wrong(&system).await
}

/// Two, because three refunds that are refused one after the other would look like a provider that refuses all.
#[tokio::test]
async fn p5_p6_a_refund_whose_key_is_refused_each_time_is_parked() -> anyhow::Result<()> {
    for flags in [&[][..], &["--no-idempotency-keys"]] {
        let mut system = quick().await?;
        let provider = Provider::start(&mut system, flags).await?;
        let returns = file(&system, 1, 2).await?;
        for id in &returns {
            let key = provider::key(&system, *id, 1).await?;
            provider.script(&key, &["key-reused"; 9], &[]).await?;
        }
        let _relay = system.start("outbox-relay").await?;
        let _consumer = system.start("refund-consumer").await?;
        let end = PARKED_UNPAID;
        all_ended(&system, &returns.iter().map(|id| (*id, end)).collect()).await?;
        nothing_is_wrong(&system).await?;
    }
    Ok(())
}

/// Waits until each return and its latest attempt are in these states, and the outbox is empty.
pub(crate) async fn all_stand(
    system: &System,
    expected: &HashMap<ReturnId, (&'static str, &'static str)>,
) -> anyhow::Result<()> {
    let mut left = String::new();
    let waited = until("each return ended as it should", DEADLINE, async || {
        let rows: Vec<(ReturnId, String, Option<String>, Option<String>)> = sqlx::query_as(
            "SELECT r.id, r.status, f.state, f.last_error FROM returns r LEFT JOIN refunds f ON f.return_id = r.id \
             AND f.attempt = (SELECT MAX(attempt) FROM refunds l WHERE l.return_id = r.id)",
        )
        .fetch_all(&system.db.pool)
        .await?;
        left = rows
            .iter()
            .filter(|(id, status, state, _)| {
                expected.get(id) != Some(&(status, state.as_deref().unwrap_or("")))
            })
            .map(|row| format!("\n{row:?}"))
            .collect();
        Ok(left.is_empty() && system.count("SELECT COUNT(*) FROM outbox").await? == 0)
    })
    .await;
    waited.with_context(|| left)
}

/// Waits until each return and its latest attempt are in the expected state and the outbox is empty. Then each must have the
/// expected number of payments, and have been accepted at most once.
async fn all_ended(system: &System, expected: &HashMap<ReturnId, End>) -> anyhow::Result<()> {
    let states = expected.iter();
    let states = states.map(|(id, (status, state, _))| (*id, (*status, *state)));
    all_stand(system, &states.collect()).await?;
    let effects = ledger::effects(&system.ledger)?;
    for (id, (_, _, payments)) in expected {
        let key = provider::key(system, *id, 1).await?;
        let paid = effects.get(&key).copied().unwrap_or(0);
        ensure!(
            paid == *payments,
            "return {id}: paid {paid} times, not {payments}"
        );
    }
    let accepted = ledger::lines(&system.ledger)?;
    ensure!(
        accepted.values().all(|count| *count == 1),
        "sent again: {accepted:?}"
    );
    Ok(())
}

/// Every fault has an end: a return is refunded, declined, or parked and shown to operators.
#[tokio::test]
async fn p5_p6_faults_in_a_fifth_of_all_calls_pay_nobody_twice() -> anyhow::Result<()> {
    const RETURNS: usize = 300;
    let faults = [
        "timeout-before",
        "timeout-after",
        "reset",
        "server-error",
        "server-error-after",
        "too-many-requests",
        "in-progress",
        "key-reused",
        "decline",
        "slow-body",
        "wrong-amount",
    ];
    let flags: Vec<String> = faults
        .iter()
        .map(|fault| format!("--fault={fault}={}", 0.2 / 11.0))
        .collect();
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.push("--hang-ms=2000");
    let mut system = quick().await?;
    let _provider = Provider::start(&mut system, &flags).await?;
    file(&system, 1, RETURNS).await?;
    let _relay = system.start("outbox-relay").await?;
    let _consumers = [
        system.start("refund-consumer").await?,
        system.start("refund-consumer").await?,
    ];
    let open = "SELECT (SELECT COUNT(*) FROM outbox) + (SELECT COUNT(*) FROM returns r WHERE r.status NOT IN \
                ('refunded', 'refund_failed') AND NOT EXISTS (SELECT 1 FROM refunds f WHERE f.return_id = r.id AND \
                f.state = 'parked'))";
    until("all ended", DEADLINE, async || {
        Ok(system.count(open).await? == 0)
    })
    .await?;
    let unclear = system
        .count("SELECT COUNT(*) FROM return_events WHERE event_type = 'refund.outcome_unknown'")
        .await?;
    let ends: Vec<(String, i64)> =
        sqlx::query_as("SELECT state, COUNT(*) FROM refunds GROUP BY state")
            .fetch_all(&system.db.pool)
            .await?;
    eprintln!("{RETURNS} returns, {unclear} outcomes were unknown for a while: {ends:?}");
    ensure!(unclear > 10, "the faults were there: {unclear}");
    nothing_is_wrong(&system).await
}

#[tokio::test]
async fn p5_what_the_provider_settles_later_is_polled_and_not_submitted_again() -> anyhow::Result<()>
{
    settled_later(&[]).await
}

/// A second call would write a second line into the ledger.
#[tokio::test]
async fn p5_without_keys_what_is_settled_later_is_polled_and_not_submitted_again()
-> anyhow::Result<()> {
    settled_later(&["--no-idempotency-keys"]).await
}

async fn settled_later(flags: &[&str]) -> anyhow::Result<()> {
    let mut system = quick().await?;
    let flags = [&["--settle-after-ms=10000"], flags].concat();
    let provider = Provider::start(&mut system, &flags).await?;
    let returns = file(&system, 1, 2 * EACH).await?;
    let mut expected = HashMap::new();
    for (at, id) in returns.iter().enumerate() {
        let declines = at % 2 == 0;
        let key = provider::key(&system, *id, 1).await?;
        // The second call of the same attempt would be accepted and paid.
        let script: &[&str] = if declines { &["decline"] } else { &[] };
        provider.script(&key, script, &[]).await?;
        expected.insert(*id, if declines { DECLINED } else { REFUNDED });
    }
    let _relay = system.start("outbox-relay").await?;
    let _consumer = system.start("refund-consumer").await?;
    let pending =
        "SELECT COUNT(*) FROM refunds WHERE state = 'pending' AND gateway_ref IS NOT NULL";
    let all = i64::try_from(returns.len())?;
    until("all are pending", DEADLINE, async || {
        Ok(system.count(pending).await? == all)
    })
    .await?;
    all_ended(&system, &expected).await?;
    nothing_is_wrong(&system).await
}

/// The payment succeeded, the response was lost, and a look-up does not find it yet. With keys the same call is repeated.
#[tokio::test]
async fn p5_what_a_look_up_does_not_see_yet_is_repeated_under_its_key() -> anyhow::Result<()> {
    look_ups_lag(&[], REFUNDED).await
}

#[tokio::test]
async fn p5_without_keys_what_a_look_up_does_not_see_yet_is_never_sent_again() -> anyhow::Result<()>
{
    look_ups_lag(&["--no-idempotency-keys"], PARKED_PAID).await
}

async fn look_ups_lag(flags: &[&str], end: End) -> anyhow::Result<()> {
    let mut system = quick().await?;
    let flags = [&["--look-up-lag-ms=600000", "--hang-ms=2000"], flags].concat();
    let provider = Provider::start(&mut system, &flags).await?;
    let returns = file(&system, 1, EACH).await?;
    for id in &returns {
        let key = provider::key(&system, *id, 1).await?;
        provider.script(&key, &["timeout-after"], &[]).await?;
    }
    let _relay = system.start("outbox-relay").await?;
    let _consumer = system.start("refund-consumer").await?;
    all_ended(&system, &returns.iter().map(|id| (*id, end)).collect()).await?;
    nothing_is_wrong(&system).await
}

/// The provider has paid and the response was lost. When it is asked, it has forgotten both the key and the refund.
#[tokio::test]
async fn p5_an_attempt_that_outlives_its_key_is_parked_and_never_sent_again() -> anyhow::Result<()>
{
    let mut system = quick().await?;
    for (name, value) in [
        ("CALL_DEADLINE_MS", "500"),
        ("GATEWAY_CALL_TIMEOUT_MS", "400"),
        ("IDEMPOTENCY_WINDOW_SECS", "5"),
    ] {
        system.env.insert(name.to_owned(), value.to_owned());
    }
    let provider =
        Provider::start(&mut system, &["--key-lifetime-secs=5", "--hang-ms=2000"]).await?;
    let returns = file(&system, 1, EACH).await?;
    for id in &returns {
        let key = provider::key(&system, *id, 1).await?;
        provider.script(&key, &["timeout-after"], &[]).await?;
    }
    let _relay = system.start("outbox-relay").await?;
    let consumer = system
        .start_with(
            "refund-consumer",
            &[
                ("LOOKUP_BACKOFF_MS", "60000"),
                ("LOOKUP_BACKOFF_MAX_MS", "60000"),
            ],
        )
        .await?;
    let all = i64::try_from(returns.len())?;
    let unknown = "SELECT COUNT(*) FROM refunds WHERE state = 'unknown'";
    until("all are unknown", DEADLINE, async || {
        Ok(system.count(unknown).await? == all)
    })
    .await?;
    consumer.stop(DEADLINE).await?;
    let outlived =
        "SELECT COUNT(*) FROM refunds WHERE first_sent_at < UTC_TIMESTAMP(6) - INTERVAL 6 SECOND";
    until("the keys have expired", DEADLINE, async || {
        Ok(system.count(outlived).await? == all)
    })
    .await?;
    sqlx::query("UPDATE refunds SET next_check_at = UTC_TIMESTAMP(6)")
        .execute(&system.db.pool)
        .await?;
    let _consumer = system.start("refund-consumer").await?;
    let end = PARKED_PAID;
    all_ended(&system, &returns.iter().map(|id| (*id, end)).collect()).await?;
    nothing_is_wrong(&system).await
}
