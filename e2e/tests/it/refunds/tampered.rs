//! The checks at the end of a run see what they are for: each is shown rows or a ledger that it must not accept.

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
async fn amounts_that_differ_are_seen() -> anyhow::Result<()> {
    let (system, _) = one_return().await?;
    run(&system, "UPDATE orders SET refunded_amount = 1").await?;
    refuses_effects(&system, "refunded amount differs").await?;
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
            "nobody asked",
        ),
    ] {
        let mut ledger = std::fs::File::create(&system.ledger)?;
        writeln!(ledger, r#"{{{line},"declined":true}}"#)?;
        refuses_effects(&system, seen).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_attempt_that_nobody_would_see_is_seen() -> anyhow::Result<()> {
    let (system, _) = one_return().await?;
    run(&system, PARKED).await?;
    refuses_effects(&system, "parked without an event").await?;
    run(&system, "UPDATE refunds SET state = 'void'").await?;
    run(&system, "UPDATE returns SET status = 'refund_pending'").await?;
    refuses_effects(&system, "nobody will look at").await
}

/// Nobody has consumed: neither the inbox nor the group knows the message.
#[tokio::test]
async fn a_message_that_nobody_took_is_seen() -> anyhow::Result<()> {
    let (system, _) = one_return().await?;
    let refused = checks::every_message_was_taken(&system).await;
    says(refused, "whose message nobody took")?;
    let _relay = system.start("outbox-relay").await?;
    until("it is in Kafka", Duration::from_secs(30), async || {
        Ok(system.count("SELECT COUNT(*) FROM outbox").await? == 0)
    })
    .await?;
    let taken = "INSERT INTO inbox (consumer, event_id, received_at) SELECT ?, event_id, created_at FROM return_events";
    sqlx::query(taken)
        .bind(&system.env["CONSUMER_GROUP"])
        .execute(&system.db.pool)
        .await?;
    let refused = checks::every_message_was_taken(&system).await;
    says(refused, "1 messages behind")
}

/// A move that is not on the graph, in a row whose hash is right.
#[tokio::test]
async fn p8_a_move_that_is_not_on_the_graph_is_seen() -> anyhow::Result<()> {
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
        says(checks::audit_is_complete(&system).await, "P8")?;
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
    says(checks::one_effect_per_return(system).await, why)
}

fn says(refused: anyhow::Result<()>, why: &str) -> anyhow::Result<()> {
    let error = refused.err().context("it was accepted")?;
    ensure!(error.to_string().contains(why), "{error:#}");
    Ok(())
}
