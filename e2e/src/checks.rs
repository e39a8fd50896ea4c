//! The promises at the end of a run, whatever was killed: rows, events, records and gateway effects agree.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, ensure};
use rust_decimal::Decimal;
use serde_json::Value;
use shared::domain::audit::AuditRow;
use shared::domain::status::{Action, Status};
use shared::test_support::{audit_trail, topics};
use sqlx::Row;
use strum::IntoEnumIterator;

use crate::ledger;
use crate::system::System;
use crate::topic_check;

/// P5: every refunded return has one effect, in all accounts at the provider together. A parked attempt has at most one; nothing else has any.
///
/// # Errors
/// The message names what disagrees.
pub async fn one_effect_per_return(system: &System) -> anyhow::Result<()> {
    let effects = ledger::effects_in_all(&system.ledgers()?)?;
    let rows = sqlx::query(
        "SELECT r.id, f.idempotency_key FROM returns r JOIN refunds f ON f.return_id = r.id \
         WHERE r.status = 'refunded' AND f.state = 'succeeded'",
    )
    .fetch_all(&system.db.pool)
    .await?;
    let refunded = system
        .count("SELECT COUNT(*) FROM returns WHERE status = 'refunded'")
        .await?;
    ensure!(
        i64::try_from(rows.len())? == refunded,
        "P5: {refunded} refunded returns, {} succeeded attempts",
        rows.len()
    );
    for row in &rows {
        let (id, key): (i64, String) = (row.try_get("id")?, row.try_get("idempotency_key")?);
        let count = effects.get(&key).copied().unwrap_or(0);
        ensure!(
            count == 1,
            "P5: return {id} has {count} effects at the gateway"
        );
    }
    let parked: HashSet<String> =
        sqlx::query_scalar("SELECT idempotency_key FROM refunds WHERE state = 'parked'")
            .fetch_all(&system.db.pool)
            .await?
            .into_iter()
            .collect();
    let waiting: Vec<u32> = effects
        .iter()
        .filter_map(|(key, count)| parked.contains(key).then_some(*count))
        .collect();
    ensure!(
        effects.len() == rows.len() + waiting.len() && waiting.iter().all(|count| *count == 1),
        "P5: {} keys at the gateway, {} refunded returns, parked ones paid {waiting:?} times",
        effects.len(),
        rows.len()
    );
    amounts_are_equal(system).await?;
    parked_ones_are_visible(system).await
}

/// P5: the provider paid the amount of the attempt, and no order was refunded more than its total.
async fn amounts_are_equal(system: &System) -> anyhow::Result<()> {
    let rows: Vec<(String, Decimal, String)> =
        sqlx::query_as("SELECT idempotency_key, amount, currency FROM refunds")
            .fetch_all(&system.db.pool)
            .await?;
    let attempts: HashMap<String, (Decimal, String)> = rows
        .into_iter()
        .map(|(key, amount, currency)| (key, (amount, currency)))
        .collect();
    for line in ledger::read_all(&system.ledgers()?)? {
        let asked = attempts.get(&line.key);
        let asked = asked.with_context(|| format!("P5: no attempt asked for {line:?}"))?;
        ensure!(
            *asked == (line.amount, line.currency.clone()),
            "P5: asked for {asked:?}, the provider has {line:?}"
        );
    }
    let too_much = system
        .count(
            "SELECT COUNT(*) FROM orders o JOIN (SELECT order_id, SUM(refund_amount) AS amount FROM returns \
             WHERE status = 'refunded' GROUP BY order_id) r ON r.order_id = o.id \
             WHERE o.refunded_amount + r.amount > o.total",
        )
        .await?;
    ensure!(
        too_much == 0,
        "P5: {too_much} orders of which more was refunded than their total"
    );
    // In these runs the shop refunds nothing itself.
    let written = system
        .count("SELECT COUNT(*) FROM orders WHERE refunded_amount <> 0")
        .await?;
    ensure!(
        written == 0,
        "P5: {written} orders with a refund that only the shop writes"
    );
    let other = system
        .count(
            "SELECT COUNT(*) FROM refunds f JOIN returns r ON r.id = f.return_id \
             WHERE f.amount <> r.refund_amount OR f.currency <> r.currency",
        )
        .await?;
    ensure!(
        other == 0,
        "P5: {other} attempts of another amount than their return"
    );
    Ok(())
}

/// P6: a parked attempt has its event, and every other pending return has an attempt that the scan will find.
async fn parked_ones_are_visible(system: &System) -> anyhow::Result<()> {
    let unseen = system
        .count(
            "SELECT COUNT(*) FROM refunds f WHERE f.state = 'parked' AND NOT EXISTS (SELECT 1 FROM return_events e \
             WHERE e.return_id = f.return_id AND e.event_type = 'refund.parked' \
             AND JSON_EXTRACT(e.event_data, '$.attempt') = f.attempt)",
        )
        .await?;
    ensure!(unseen == 0, "P6: {unseen} parked attempts without an event");
    let forgotten = system
        .count(
            "SELECT COUNT(*) FROM returns r WHERE r.status = 'refund_pending' AND NOT EXISTS (SELECT 1 FROM refunds f \
             WHERE f.return_id = r.id AND f.state IN ('claimed', 'sent', 'pending', 'unknown', 'parked'))",
        )
        .await?;
    ensure!(
        forgotten == 0,
        "P6: {forgotten} pending returns that no scan will find"
    );
    Ok(())
}

/// P6: the group has processed every message and committed its offset. A return that the scan claims hides a message that
/// was skipped, so the run must switch the scan off. The consumers must have stopped.
///
/// # Errors
/// The message names what is missing.
pub async fn every_message_was_processed(system: &System) -> anyhow::Result<()> {
    let group = system.env.get("CONSUMER_GROUP").context("CONSUMER_GROUP")?;
    let untaken: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM returns r JOIN return_events e ON e.return_id = r.id AND e.seq = 1 \
         LEFT JOIN inbox i ON i.consumer = ? AND i.event_id = e.event_id WHERE i.event_id IS NULL",
    )
    .bind(group)
    .fetch_one(&system.db.pool)
    .await?;
    ensure!(
        untaken == 0,
        "P6: {untaken} new returns whose message was not processed"
    );
    let behind = lag(system).await?;
    ensure!(behind == 0, "P6: the group is {behind} messages behind");
    Ok(())
}

/// The lag of the group: new-return messages whose offset is not committed.
///
/// # Errors
/// Kafka cannot be reached.
pub async fn lag(system: &System) -> anyhow::Result<i64> {
    let group = system.env.get("CONSUMER_GROUP").context("CONSUMER_GROUP")?;
    Ok(topics::lag(&system.brokers, group, &system.topics[0]).await?)
}

/// P7: the events of each return are 1..version and chained, and the last one has the present status.
///
/// # Errors
/// The message names what is broken.
pub async fn audit_is_complete(system: &System) -> anyhow::Result<()> {
    let gaps = system
        .count(
            "SELECT COUNT(*) FROM returns r LEFT JOIN (SELECT return_id, COUNT(*) AS n, MAX(seq) AS last, MIN(seq) AS first \
             FROM return_events GROUP BY return_id) e ON e.return_id = r.id \
             WHERE e.n IS NULL OR e.n <> r.version OR e.last <> r.version OR e.first <> 1",
        )
        .await?;
    ensure!(gaps == 0, "P7: {gaps} returns with a gap in their events");
    let rows = audit_trail::read_verified(&system.db.pool, None).await?;
    transitions_follow_the_table(&rows)?;
    let stale = system
        .count(
            "SELECT COUNT(*) FROM returns r JOIN return_events e ON e.return_id = r.id AND e.seq = r.version \
             WHERE JSON_UNQUOTE(JSON_EXTRACT(e.event_data, '$.to')) <> r.status",
        )
        .await?;
    ensure!(
        stale == 0,
        "P7: {stale} returns whose last event names another status"
    );
    Ok(())
}

/// P8: each event starts in the status in which the previous one ended, and ends where the transition table says.
fn transitions_follow_the_table(rows: &[AuditRow]) -> anyhow::Result<()> {
    let mut status = None;
    for row in rows {
        let data: Value = serde_json::from_str(&row.event_data)?;
        let named = |field: &str| data[field].as_str().and_then(|name| name.parse().ok());
        let (from, to) = (named("from"), named("to"));
        let expected = if row.seq == 1 {
            status = None;
            Some(Status::Initiated)
        } else {
            let action = Action::iter().find(|action| action.event_type() == row.event_type);
            status
                .zip(action)
                .and_then(|(status, action): (Status, Action)| status.after(action).ok())
        };
        ensure!(
            expected.is_some() && to == expected && from == status,
            "P8: return {} seq {}: {} from {status:?} has {data}",
            row.return_id,
            row.seq,
            row.event_type
        );
        status = to;
    }
    Ok(())
}

/// One audit row per step: a refunded return has exactly the four events of the straight path.
///
/// # Errors
/// The message has the number of returns with other events.
pub async fn straight_paths(system: &System) -> anyhow::Result<()> {
    let other = system
        .count(
            "SELECT COUNT(*) FROM (SELECT return_id, GROUP_CONCAT(event_type ORDER BY seq) AS path FROM return_events \
             GROUP BY return_id) p \
             WHERE path <> 'return.initiated,return.approved,refund.requested,refund.succeeded'",
        )
        .await?;
    ensure!(
        other == 0,
        "P7: {other} returns went another way than filed, approved, requested, refunded"
    );
    Ok(())
}

/// All of the above.
///
/// # Errors
/// The first that fails.
pub async fn everything(system: &System) -> anyhow::Result<()> {
    topic_check::check(system).await?;
    one_effect_per_return(system).await?;
    audit_is_complete(system).await
}
