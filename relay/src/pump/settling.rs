//! Settle: acknowledged rows are deleted, and deleted rows are forgotten.

use shared::runtime::killpoint::kill_point;

use super::Pump;
use crate::error::RestartCause;
use crate::pending::RowKey;
use crate::publisher::{DeliveryReport, Publish, RecordId};

impl<P: Publish> Pump<P> {
    /// Settles what Kafka has acknowledged while the pump waited for the database: otherwise a partition that moves
    /// would look as if it had acknowledged nothing since.
    pub(super) fn settle_waiting(&mut self) -> Result<(), RestartCause> {
        let reports = self.delivery.waiting_reports();
        self.settle(&reports)
    }

    pub(super) fn settle(&mut self, reports: &[DeliveryReport]) -> Result<(), RestartCause> {
        let mut delivered = Vec::new();
        let mut outcome = Ok(());
        for report in reports {
            // Each report counts, also after one that failed.
            outcome = outcome.and(self.settle_one(*report, &mut delivered));
        }
        if !delivered.is_empty() {
            kill_point("relay.after_ack");
            self.deleter.add(&mut delivered);
        }
        outcome
    }

    fn settle_one(
        &mut self,
        report: DeliveryReport,
        delivered: &mut Vec<RowKey>,
    ) -> Result<(), RestartCause> {
        match report {
            DeliveryReport::Delivered(id, partition) => {
                delivered.extend(self.note_delivered(id, partition));
                Ok(())
            }
            DeliveryReport::Undelivered(id, code) => {
                let state = self.owned.get(id.shard());
                let record = state.and_then(|state| state.in_flight.get(id.number()));
                if let Some((record, span)) = record {
                    span.fail(code);
                    self.delivery.note_undelivered(*record, code);
                }
                Err(RestartCause::Undelivered(code))
            }
            DeliveryReport::Fatal(code) => Err(RestartCause::Fatal(code)),
            DeliveryReport::BrokersForgotten => Err(RestartCause::BrokersForgotten),
            DeliveryReport::BrokersDown => {
                self.delivery.note_brokers_down(&self.owned);
                Ok(())
            }
        }
    }

    fn note_delivered(&mut self, id: RecordId, partition: usize) -> Option<RowKey> {
        let state = self.owned.get_mut(id.shard())?;
        let record = state.in_flight.acknowledge(id.number())?;
        self.metrics.published_rows.inc();
        self.metrics
            .delivery_seconds
            .observe(record.created.elapsed().as_secs_f64());
        self.delivery.note_delivered(record, partition);
        Some(record.key)
    }

    pub(super) fn note_deleted(&mut self, keys: Vec<RowKey>) {
        kill_point("relay.after_delete");
        self.reads.note_deleted(keys);
        if !self.reads.is_reading() {
            self.reads.settle_deleted(&mut self.owned);
        }
    }
}
