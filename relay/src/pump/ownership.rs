//! Following the leases: shards are acquired, lost or handed over, or an operator puts rows back.

use std::time::Instant;

use shared::domain::ids::Shard;
use shared::runtime::clock::Moment;
use shared::runtime::db::DbError;

use super::{Pump, RETRY_PAUSE};
use crate::error::RestartCause;
use crate::publisher::Publish;
use crate::store::parking::{self, ParkedRow};

impl<P: Publish> Pump<P> {
    /// Brings the owned shards in line with the leases.
    pub(super) async fn follow_leases(&mut self) -> Result<(), RestartCause> {
        if self.owned.take_news() {
            self.refresh_leases();
            if self.owned.adopt_new() {
                self.reads.invalidate();
            }
        }
        // One moment for both checks: if a lease ended between them, its records in flight would not count as lost.
        let now = Moment::now();
        if self.owned.has_lost_records_in_flight(now) {
            return Err(RestartCause::LeaseLost);
        }
        self.owned.drop_lost(now);
        self.delivery.expire_isolation(Instant::now());
        if self.owned.is_hand_over_late(self.args.drain()) {
            return Err(RestartCause::HandOverLate);
        }
        self.owned.release_settled();
        self.load_parked_keys().await;
        self.owned.update_gauges();
        Ok(())
    }

    pub(super) fn refresh_leases(&mut self) {
        if self.owned.refresh_leases() {
            // The operator may have put a large record back because its topic accepts more now.
            self.delivery.forget_troubles();
        }
    }

    /// Loads the parked keys of shards whose keys are not known. Until then nothing of them may be sent.
    async fn load_parked_keys(&mut self) {
        let shards = self.owned.without_parked_keys();
        if shards.is_empty() {
            return;
        }
        let read = self.read_parked_keys(shards).await;
        match self.monitors.parked_keys.note(read) {
            Some(keys) => self.owned.set_parked_keys(&keys),
            None => tokio::time::sleep(RETRY_PAUSE).await,
        }
    }

    async fn read_parked_keys(&mut self, shards: Vec<Shard>) -> Result<Vec<ParkedRow>, DbError> {
        let deadline = self.owned.work_deadline();
        let read = self
            .database
            .run("read_parked_keys", deadline, move |conn| {
                Box::pin(async move { Ok(parking::read_parked_keys(conn, &shards).await?) })
            });
        read.await
    }
}
