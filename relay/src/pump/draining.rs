//! The end of the pump: no more reads, and what is in flight is settled until the drain deadline.

use std::time::Instant;

use shared::runtime::clock::Moment;

use super::{Event, Pump, TICK};
use crate::publisher::Publish;

impl<P: Publish> Pump<P> {
    /// Waits until all records in flight are acknowledged and deleted, or the deadline has passed. Hands over each shard
    /// as soon as it is settled. Returns how many rows are left.
    pub(super) async fn drain(mut self) -> usize {
        let deadline = Instant::now() + self.args.drain();
        // The result of a read in progress is not used any more.
        self.reads.settle_deleted(&mut self.owned);
        while Instant::now() < deadline && (self.owned.in_flight() > 0 || !self.deleter.is_empty())
        {
            self.refresh_leases();
            if self.owned.has_lost_records_in_flight(Moment::now()) {
                tracing::warn!("a lease was lost while flushing");
                break;
            }
            self.owned.release_settled();
            self.deleter.dispatch(true);
            let wake = deadline.min(Instant::now() + TICK);
            if !self.handle_drain_event(wake).await {
                break;
            }
        }
        self.destroy_producer().await;
        let left = self.owned.unsettled();
        self.database.close().await;
        self.parking_database.close().await;
        left
    }

    /// `false`: nothing more can be flushed.
    async fn handle_drain_event(&mut self, wake: Instant) -> bool {
        match self.next_drain_event(wake).await {
            Event::Reported(reports) => {
                if let Err(cause) = self.settle(&reports) {
                    let code = cause.code();
                    tracing::warn!(cause = code, "records could not be flushed: {cause}");
                    return false;
                }
            }
            Event::Deleted(keys) => {
                self.note_deleted(keys);
                self.reads.settle_deleted(&mut self.owned);
            }
            Event::TaskEnded(_) => return false,
            Event::Read(_) | Event::Counted(_) | Event::LeasesChanged | Event::Tick => {}
        }
        true
    }

    async fn next_drain_event(&mut self, wake: Instant) -> Event {
        tokio::select! {
            reports = self.delivery.reports() => {
                reports.map_or(Event::TaskEnded("producer"), Event::Reported)
            }
            keys = self.deleter.deleted() => {
                keys.map_or(Event::TaskEnded("deleter"), Event::Deleted)
            }
            () = tokio::time::sleep_until(wake.into()) => Event::Tick,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use shared::domain::ids::{EventId, Shard};
    use shared::runtime::clock::Expiry;
    use shared::runtime::db::Database;
    use tokio::sync::{mpsc, watch};

    use super::*;
    use crate::config::tests::config;
    use crate::lease::{HeldLease, LeaseHandle};
    use crate::metrics::Metrics;
    use crate::pending::RowKey;
    use crate::publisher::kafka::KafkaPublisher;
    use crate::pump::PumpTasks;

    const SHARD: Shard = Shard(3);

    fn leases() -> LeaseHandle {
        let lease = HeldLease {
            epoch: 1,
            redrive_gen: 0,
            trust: Expiry::new(Moment::now(), Duration::from_secs(60)),
            handing_over: false,
        };
        LeaseHandle {
            owner: "r".to_owned(),
            held: watch::channel(BTreeMap::from([(SHARD, lease)])).1,
            release: mpsc::unbounded_channel().0,
            work_deadline: Duration::from_secs(1),
        }
    }

    /// A pump without MySQL and Kafka whose tasks do not run: every read stays in progress.
    fn pump_alone() -> (Pump<KafkaPublisher>, PumpTasks) {
        let config = config(&[]);
        let metrics = Metrics::new();
        let options = config.db.options().expect("a good URL");
        let database = Database::new(options, 1, &metrics.database);
        let publisher = KafkaPublisher::new(&config.kafka);
        Pump::new(config.pump, &database, publisher, leases(), metrics)
    }

    #[tokio::test]
    async fn p11_a_row_deleted_during_a_read_is_not_counted_as_left_in_flight() {
        let (mut pump, _tasks) = pump_alone();
        pump.owned.refresh_leases();
        pump.owned.adopt_new();
        pump.owned.set_parked_keys(&[]);
        let key = RowKey {
            shard: SHARD,
            id: 7,
            event_id: EventId::generate(),
        };
        let state = pump.owned.get_mut(SHARD).expect("adopted");
        state.unsettled.insert(key.id);
        pump.reads.start(&mut pump.owned, Instant::now());
        assert!(pump.reads.is_reading());

        pump.note_deleted(vec![key]);
        assert_eq!(pump.owned.unsettled(), 1, "the read may still return it");
        assert_eq!(pump.drain().await, 0);
    }
}
