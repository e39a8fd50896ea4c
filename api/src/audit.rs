//! Reading the audit trail: pages and exports, for auditors and admins.
//!
//! Must stay true: the filters of an auditor may be broad, but customers' requests still find free connections (P12).

use std::sync::Arc;
use std::time::Duration;

use shared::auth::Holder;
use shared::domain::ids::{CustomerId, ReturnId};
use shared::runtime::db::{Database, DbError};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::quota::{Quota, QuotaPermit};
use crate::store::{
    self, BrokenTrail, EventFilter, EventRow, OperatorActionFilter, OperatorActionRow, Position,
    Walk,
};

/// Exports in progress at once. Each holds its client's connection, and a chunk of some 400 KB while the client does
/// not read.
const EXPORTS: usize = 16;
/// One auditor, together with the tokens narrowed from theirs, leaves half of the exports to others.
const EXPORTS_PER_HOLDER: usize = EXPORTS / 4;

/// Auditors wait for each other; no deadline of the server covers an export.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);
/// More than the statements' own limit.
const DEADLINE: Duration = Duration::from_secs(25);

/// Events that an export reads at once: some 400 KB of ours, a few milliseconds.
pub(crate) const CHUNK: u32 = 500;

/// Reads the audit trail on a share of the connections.
#[derive(Debug, Clone)]
pub(crate) struct AuditReads {
    db: Database,
    metrics: Arc<Metrics>,
    exports: Arc<Quota>,
    pub(crate) export_limits: ExportLimits,
}

/// When an export is cut.
#[derive(Debug, Clone)]
pub(crate) struct ExportLimits {
    /// The api stops.
    pub(crate) stop: CancellationToken,
    /// How long the client may read nothing in all, apart from what its minimum rate allows.
    pub(crate) pauses: Duration,
}

/// Which events an export has.
#[derive(Debug, Clone)]
pub(crate) enum Scope {
    Filtered(EventFilter),
    /// One return's after the one with this `seq`, in the order of its chain.
    Chain {
        id: ReturnId,
        after_seq: i32,
    },
}

/// The place of an event, among all events and in its chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) position: Position,
    pub(crate) seq: i32,
}

impl AuditReads {
    /// On a quarter of the connections.
    pub(crate) fn new(db: &Database, metrics: Arc<Metrics>, export_limits: ExportLimits) -> Self {
        let quarter = db.max_connections() / 4;
        Self {
            db: db.share(quarter).acquire_timeout(ACQUIRE_TIMEOUT),
            metrics,
            exports: Quota::new(EXPORTS, EXPORTS_PER_HOLDER),
            export_limits,
        }
    }

    /// The permit of one export, for as long as it is in progress.
    ///
    /// # Errors
    /// [`ApiError::TooManyExports`].
    pub(crate) fn begin_export(&self, holder: Holder) -> Result<QuotaPermit, ApiError> {
        let permit = self.exports.acquire(holder);
        permit.map_err(|_| ApiError::TooManyExports)
    }

    /// At most `limit` events of all returns.
    pub(crate) async fn list(
        &self,
        filter: EventFilter,
        walk: Walk,
        limit: u32,
    ) -> Result<Vec<EventRow>, DbError> {
        let rows = self.db.run("list_events", DEADLINE, move |conn| {
            Box::pin(async move {
                let rows = store::list_events(conn, &filter, walk, limit).await;
                rows.map_err(DbError::from)
            })
        });
        rows.await
    }

    /// At most `limit` events of one return, in the order of its chain.
    pub(crate) async fn list_of(
        &self,
        id: ReturnId,
        after_seq: i32,
        limit: u32,
    ) -> Result<Vec<EventRow>, DbError> {
        let rows = self.db.run("list_events_of_return", DEADLINE, move |conn| {
            Box::pin(async move {
                let rows = store::list_events_of(conn, id, after_seq, limit).await;
                rows.map_err(DbError::from)
            })
        });
        rows.await
    }

    /// At most `limit` actions of operators, newest first.
    pub(crate) async fn operator_actions(
        &self,
        filter: OperatorActionFilter,
        limit: u32,
    ) -> Result<Vec<OperatorActionRow>, DbError> {
        let rows = self.db.run("list_operator_actions", DEADLINE, move |conn| {
            Box::pin(async move {
                let rows = store::list_operator_actions(conn, &filter, limit).await;
                rows.map_err(DbError::from)
            })
        });
        rows.await
    }

    /// The next chunk of an export, oldest first.
    pub(crate) async fn chunk(
        &self,
        scope: &Scope,
        after: Option<Place>,
    ) -> Result<Vec<EventRow>, DbError> {
        match scope {
            Scope::Filtered(filter) => {
                let walk = Walk::OldestFirst(after.map(|place| place.position));
                self.list(filter.clone(), walk, CHUNK).await
            }
            Scope::Chain { id, after_seq } => {
                let after_seq = after.map_or(*after_seq, |place| place.seq);
                self.list_of(*id, after_seq, CHUNK).await
            }
        }
    }

    /// Checks that no event of the returns that the scope names is missing. Where it names neither a return nor an order,
    /// it only checks that there are events at all: `returnsctl doctor` looks closer.
    ///
    /// # Errors
    /// [`ApiError::BrokenTrail`]: whatever is left must not look like the whole trail.
    pub(crate) async fn check_whole(&self, scope: &Scope) -> Result<(), ApiError> {
        let (return_id, order_id) = match scope {
            Scope::Chain { id, .. } => (Some(*id), None),
            Scope::Filtered(filter) => (filter.return_id, filter.order_id),
        };
        let broken = self.db.run("check_trail", DEADLINE, move |conn| {
            Box::pin(async move {
                let broken = match (return_id, order_id) {
                    (Some(id), _) => store::broken_trail_of(conn, id).await,
                    (None, Some(order)) => store::broken_trail_of_order(conn, order).await,
                    (None, None) => store::no_trail_at_all(conn).await,
                };
                broken.map_err(DbError::from)
            })
        });
        match broken.await? {
            None => Ok(()),
            Some(broken) => Err(self.report(broken)),
        }
    }

    fn report(&self, broken: BrokenTrail) -> ApiError {
        let BrokenTrail {
            return_id,
            version,
            present,
        } = broken;
        self.metrics.broken_trails.inc();
        tracing::error!(return.id = %return_id, version, present, "rows of return_events are missing");
        ApiError::BrokenTrail {
            return_id,
            version,
            present,
        }
    }

    /// The database's clock, which also dates the events.
    pub(crate) async fn now(&self) -> Result<OffsetDateTime, DbError> {
        let now = self.db.run("read_clock", DEADLINE, |conn| {
            Box::pin(async { store::now(conn).await.map_err(DbError::from) })
        });
        now.await
    }

    /// The owner of a return, and nothing else of its row: an auditor must also see events that were tampered with.
    pub(crate) async fn owner_of(&self, id: ReturnId) -> Result<Option<CustomerId>, DbError> {
        let owner = self.db.run("find_owner", DEADLINE, move |conn| {
            Box::pin(async move { store::owner_of(conn, id).await.map_err(DbError::from) })
        });
        owner.await
    }
}
