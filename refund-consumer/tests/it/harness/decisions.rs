//! What people decide, as the api and `returnsctl` write it.

use serde_json::Map;
use shared::domain::actor::{Actor, ActorType};
use shared::domain::refund::MARKED_NOT_PAID;
use shared::domain::status::Action;
use shared::domain::trace_context::TraceContext;
use shared::domain::transition::{self, Cause, Change, Filed, Locked};
use sqlx::{MySql, Transaction};

use super::World;

/// Adds an attempt without an owner, due now.
pub(crate) async fn retry(world: &World, filed: &Filed) {
    let (mut tx, mut locked) = lock(world, filed).await;
    let row = locked.get(filed.return_id).expect("locked");
    let added = transition::add_attempt(&mut tx, row, locked.now).await;
    added.expect("an attempt");
    decide(world, filed, Action::Retry, &mut tx, &mut locked).await;
    tx.commit().await.expect("commit");
}

/// States that the last attempt, which is parked, paid nothing.
pub(crate) async fn mark_not_paid(world: &World, filed: &Filed) {
    let (mut tx, mut locked) = lock(world, filed).await;
    let closed = sqlx::query(
        "UPDATE refunds SET state = 'declined', last_error = ? WHERE return_id = ? AND state = 'parked' \
         ORDER BY attempt DESC LIMIT 1",
    )
    .bind(MARKED_NOT_PAID)
    .bind(filed.return_id)
    .execute(&mut *tx)
    .await;
    assert_eq!(closed.expect("closed").rows_affected(), 1);
    decide(world, filed, Action::MarkNotPaid, &mut tx, &mut locked).await;
    tx.commit().await.expect("commit");
}

async fn lock(world: &World, filed: &Filed) -> (Transaction<'static, MySql>, Locked) {
    let mut tx = world.db.pool.begin().await.expect("begin");
    let locked = transition::lock(&mut tx, &[filed.return_id]).await;
    (tx, locked.expect("lock"))
}

async fn decide(
    world: &World,
    filed: &Filed,
    action: Action,
    tx: &mut Transaction<'static, MySql>,
    locked: &mut Locked,
) {
    let change = Change {
        return_id: filed.return_id,
        action,
        cause: Cause {
            actor: Actor {
                kind: ActorType::Admin,
                id: "7".to_owned(),
            },
            request_id: None,
            trace: TraceContext::new_root(),
        },
        detail: Map::new(),
    };
    let applied = transition::apply(tx, locked, &world.topics, &[change]).await;
    applied.expect("apply");
}
