//! A change of all rows of a topic, in transactions of a bounded size.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use shared::domain::ids::Shard;
use sqlx::mysql::MySqlConnection;

use crate::error::CtlError;
use crate::session::Session;
use crate::store::leases::lock_lease;
use crate::store::parked::{RowId, RowsOfTopic, rows_of_topic};

/// Of one transaction: milliseconds of work, so that the shard's relay can renew its lease.
const ROWS_PER_TRANSACTION: usize = 500;

/// Changes every row of a topic that is there now, shard by shard, each with its lease row locked. `change` returns how
/// many of the given rows it has changed, at least one is given. Returns their sum.
///
/// # Errors
/// The transactions before the one that failed stay committed. Run it again for the rest.
pub(super) async fn change_rows<C>(
    session: &Session,
    name: &'static str,
    which: RowsOfTopic,
    topic: &Arc<str>,
    change: C,
) -> Result<u64, CtlError>
where
    C: for<'c> Fn(
            &'c mut MySqlConnection,
            Shard,
            Arc<[RowId]>,
        ) -> BoxFuture<'c, Result<u64, CtlError>>
        + Send
        + Sync
        + 'static,
{
    let change = Arc::new(change);
    let mut changed = 0;
    for shard in Shard::all() {
        let mut after = 0;
        while let Some((rows, last)) = read_rows(session, which, shard, topic, after).await? {
            let change = Arc::clone(&change);
            let done = session.transaction(name, move |conn| {
                let (rows, change) = (Arc::clone(&rows), Arc::clone(&change));
                Box::pin(async move {
                    lock_lease(conn, shard).await?;
                    change(conn, shard, rows).await
                })
            });
            changed += done.await?;
            after = last;
        }
    }
    Ok(changed)
}

/// The next rows with the last id among them. `None`: there are no more.
async fn read_rows(
    session: &Session,
    which: RowsOfTopic,
    shard: Shard,
    topic: &Arc<str>,
    after: i64,
) -> Result<Option<(Arc<[RowId]>, i64)>, CtlError> {
    let topic = Arc::clone(topic);
    let rows = session.read("rows_of_topic", move |conn| {
        Box::pin(async move {
            rows_of_topic(conn, which, shard, &topic, after, ROWS_PER_TRANSACTION).await
        })
    });
    let rows = rows.await?;
    Ok(rows
        .last()
        .map(|last| last.id)
        .map(|last| (rows.into(), last)))
}
