//! Changes of returns as other programs make them, through the same `transition`.

use serde_json::Map;
use shared::domain::actor::Actor;
use shared::domain::event::TopicArgs;
use shared::domain::ids::ReturnId;
use shared::domain::status::Action;
use shared::domain::trace_context::TraceContext;
use shared::domain::transition::{self, Cause, Change};
use shared::test_support::TestDb;
use sqlx::MySqlConnection;

/// Moves a return as the consumer would, in one transaction.
pub(crate) async fn change(db: &TestDb, id: i64, actions: &[Action]) {
    let mut tx = db.pool.begin().await.expect("begin");
    change_in(&mut tx, id, actions).await;
    tx.commit().await.expect("commit");
}

/// In the caller's transaction.
pub(crate) async fn change_in(conn: &mut MySqlConnection, id: i64, actions: &[Action]) {
    let topics = TopicArgs {
        topic_returns: "order.returns".to_owned(),
        topic_status: "order.returns.status".to_owned(),
    };
    let id = ReturnId(id);
    let mut locked = transition::lock(conn, &[id]).await.expect("lock");
    let changes: Vec<Change> = actions
        .iter()
        .map(|action| Change {
            return_id: id,
            action: *action,
            cause: Cause {
                actor: Actor::system("test"),
                request_id: None,
                trace: TraceContext::new_root(),
            },
            detail: Map::new(),
        })
        .collect();
    transition::apply(conn, &mut locked, &topics, &changes)
        .await
        .expect("apply");
}
