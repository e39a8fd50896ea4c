//! Each check at the end of a run finds what it is for: it must refuse tampered rows and a tampered ledger.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::system::System;
use e2e::{checks, until};
use shared::domain::actor::Actor;
use shared::domain::audit::AuditRow;
use shared::domain::ids::{EventId, ReturnId};

use super::{file, quick};

const PARKED: &str = "INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, \
     next_check_at, created_at, updated_at) SELECT id, 1, 'k', refund_amount, currency, 'parked', \
     updated_at, updated_at, updated_at FROM returns";

#[tokio::test]
async fn amounts_that_differ_are_found() -> anyhow::Result<()> {
    let (system, _) = one_return().await?;
    run(&system, "UPDATE orders SET refunded_amount = 1").await?;
    refuses_effects(&system, "that only the shop writes").await?;
    run(&system, "UPDATE orders SET refunded_amount = 0").await?;
    checks::one_effect_per_return(&system).await?;

    run(&system, PARKED).await?;
    run(&system, "UPDATE refunds SET state = 'void'").await?;
    run(&system, "UPDATE refunds SET amount = amount - 0.01").await?;
    refuses_effects(&system, "another amount than their return").await?;
    run(&system, "UPDATE refunds SET amount = amount + 0.01").await?;
    checks::one_effect_per_return(&system).await?;

    for (line, seen) in [
        (
            r#""reference":"k","amount":"49.91","currency":"EUR""#,
            "asked for",
        ),
        (
            r#""reference":"k","amount":"49.90","currency":"USD""#,
            "asked for",
        ),
        (
            r#""reference":"x","amount":"49.90","currency":"EUR""#,
            "no attempt asked",
        ),
    ] {
        let mut ledger = std::fs::File::create(&system.ledger)?;
        writeln!(ledger, r#"{{{line},"declined":true}}"#)?;
        refuses_effects(&system, seen).await?;
    }

    let mut ledger = std::fs::File::create(&system.ledger)?;
    writeln!(
        ledger,
        r#"{{"reference":"k","amount":"49.90","currency":"EUR"}}"#
    )?;
    run(&system, "UPDATE refunds SET state = 'succeeded'").await?;
    run(&system, "UPDATE returns SET status = 'refunded'").await?;
    checks::one_effect_per_return(&system).await?;
    run(&system, "UPDATE orders SET total = 49.89").await?;
    refuses_effects(&system, "more was refunded than their total").await
}

#[tokio::test]
async fn a_hidden_attempt_is_found() -> anyhow::Result<()> {
    let (system, _) = one_return().await?;
    run(&system, PARKED).await?;
    refuses_effects(&system, "parked attempts without an event").await?;
    run(&system, "UPDATE refunds SET state = 'void'").await?;
    run(&system, "UPDATE returns SET status = 'refund_pending'").await?;
    refuses_effects(&system, "no scan will find").await
}

/// No consumer ran: neither the inbox nor the group knows the message.
#[tokio::test]
async fn a_message_that_was_not_processed_is_found() -> anyhow::Result<()> {
    let (system, _) = one_return().await?;
    let refused = checks::every_message_was_processed(&system).await;
    has_message(refused, "whose message was not processed")?;
    let _relay = system.start("outbox-relay").await?;
    until("it is in Kafka", Duration::from_secs(30), async || {
        Ok(system.count("SELECT COUNT(*) FROM outbox").await? == 0)
    })
    .await?;
    let processed = "INSERT INTO inbox (consumer, event_id, received_at) SELECT ?, event_id, created_at FROM return_events";
    sqlx::query(processed)
        .bind(&system.env["CONSUMER_GROUP"])
        .execute(&system.db.pool)
        .await?;
    let refused = checks::every_message_was_processed(&system).await;
    has_message(refused, "1 messages behind")
}

/// A transition that the table does not have, in a row whose hash is right.
#[tokio::test]
async fn p8_a_transition_that_the_table_does_not_have_is_found() -> anyhow::Result<()> {
    for (event_type, from, to) in [
        ("refund.succeeded", "initiated", "refunded"),
        ("return.approved", "initiated", "refunded"),
        ("return.approved", "approved", "approved"),
    ] {
        let (system, id) = one_return().await?;
        checks::audit_is_complete(&system).await?;
        append(
            &system,
            id,
            event_type,
            &format!(r#"{{"from":"{from}","to":"{to}"}}"#),
        )
        .await?;
        sqlx::query("UPDATE returns SET version = 2, status = ?")
            .bind(to)
            .execute(&system.db.pool)
            .await?;
        has_message(checks::audit_is_complete(&system).await, "P8")?;
    }
    Ok(())
}

async fn append(system: &System, id: ReturnId, event: &str, data: &str) -> anyhow::Result<()> {
    let (prev_hash, created_at) =
        sqlx::query_as("SELECT hash, created_at FROM return_events WHERE return_id = ?")
            .bind(id)
            .fetch_one(&system.db.pool)
            .await?;
    let row = AuditRow {
        return_id: id,
        seq: 2,
        event_id: EventId::generate(),
        event_type: event.to_owned(),
        event_data: data.to_owned(),
        actor: Actor::system("test"),
        request_id: None,
        trace_id: None,
        created_at,
        prev_hash,
    };
    sqlx::query(
        "INSERT INTO return_events (return_id, seq, event_id, event_type, event_data, actor_type, actor_id, created_at, \
         prev_hash, hash) VALUES (?, 2, ?, ?, ?, 'system', 'test', ?, ?, ?)",
    )
    .bind(id)
    .bind(row.event_id)
    .bind(event)
    .bind(data)
    .bind(row.created_at)
    .bind(&row.prev_hash)
    .bind(row.hash())
    .execute(&system.db.pool)
    .await?;
    Ok(())
}

async fn one_return() -> anyhow::Result<(System, ReturnId)> {
    let system = quick().await?;
    let id = file(&system, 1, 1).await?[0];
    Ok((system, id))
}

async fn run(system: &System, sql: &'static str) -> anyhow::Result<()> {
    let done = sqlx::query(sql)
        .execute(&system.db.pool)
        .await
        .context(sql)?;
    ensure!(done.rows_affected() == 1, "{sql}");
    Ok(())
}

async fn refuses_effects(system: &System, why: &str) -> anyhow::Result<()> {
    has_message(checks::one_effect_per_return(system).await, why)
}

fn has_message(refused: anyhow::Result<()>, why: &str) -> anyhow::Result<()> {
    let error = refused.err().context("it was accepted")?;
    ensure!(error.to_string().contains(why), "{error:#}");
    Ok(())
}
