//! What reading the audit trail may take of this process: a lane of its own, and so many exports at once.
//!
//! Must stay true: however broad an auditor's filters are, customers' requests find free connections (P12).

use std::sync::Arc;
use std::time::Duration;

use sqlx::mysql::MySqlPool;

use crate::error::ApiError;
use crate::lane::Lane;
use crate::slots::{Slot, Slots};

/// Exports under way at once. Each holds a connection of its client, and a chunk of some 400 KB while that does not read.
const EXPORTS: usize = 16;
/// One auditor who does not read leaves half of them to others.
const EXPORTS_PER_USER: usize = EXPORTS / 2;

/// Auditors wait for each other; no deadline of the server covers an export.
const PATIENCE: Duration = Duration::from_secs(30);
/// More than the statements' own limit.
const HELD: Duration = Duration::from_secs(25);

/// The auditors' way to the database.
#[derive(Debug, Clone)]
pub struct Trail {
    pub(crate) lane: Lane,
    exports: Arc<Slots>,
}

impl Trail {
    pub(crate) fn new(pool: &MySqlPool) -> Self {
        Self {
            lane: Lane::quarters(1, pool, PATIENCE, HELD),
            exports: Slots::new(EXPORTS, EXPORTS_PER_USER),
        }
    }

    /// The right to one export, for as long as it is held.
    ///
    /// # Errors
    /// [`ApiError::TooManyExports`].
    pub(crate) fn begin_export(&self, user: i64) -> Result<Slot, ApiError> {
        let slot = self.exports.take(user);
        slot.map_err(|_| ApiError::TooManyExports)
    }
}
