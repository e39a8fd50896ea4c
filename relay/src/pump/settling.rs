//! Settle: acknowledgements become deletions, deletions are forgotten.

use shared::runtime::killpoint::kill_point;

use super::Pump;
use crate::error::Failure;
use crate::pending::RowKey;
use crate::publisher::{Publish, Report, Token};

impl<P: Publish> Pump<P> {
    pub(super) fn settle(&mut self, reports: &[Report]) -> Result<(), Failure> {
        let mut done = Vec::new();
        let mut outcome = Ok(());
        for report in reports {
            if let Err(failure) = self.settle_one(*report, &mut done) {
                outcome = outcome.and(Err(failure));
            }
        }
        if !done.is_empty() {
            kill_point("relay.after_ack");
            self.deleter.add(&mut done);
        }
        outcome
    }

    fn settle_one(&mut self, report: Report, done: &mut Vec<RowKey>) -> Result<(), Failure> {
        match report {
            Report::Delivered(token) => {
                self.note_delivered(token, done);
                Ok(())
            }
            Report::Undelivered(token, code) => {
                self.note_undelivered(token, code);
                Err(Failure::Undelivered(code))
            }
            Report::Fatal(code) => Err(Failure::Fatal(code)),
            Report::BrokersForgotten => Err(Failure::BrokersForgotten),
            Report::BrokersDown => {
                self.note_brokers_down();
                Ok(())
            }
        }
    }

    fn note_delivered(&mut self, token: Token, done: &mut Vec<RowKey>) {
        let Some(work) = self.shards.get_mut(&token.shard()) else {
            return;
        };
        let Some(sent) = work.in_flight.acknowledge(token.number()) else {
            return;
        };
        done.push(sent.key);
        self.metrics.published_rows.inc();
        self.metrics
            .delivery_seconds
            .observe(sent.born.elapsed().as_secs_f64());
        self.alone.remove(&sent.key.event_id);
        self.note_flowing();
    }

    pub(super) fn note_deleted(&mut self, keys: Vec<RowKey>) {
        kill_point("relay.after_delete");
        self.gone.extend(keys);
        if !self.reader.is_busy() {
            self.forget_gone();
        }
    }

    /// Only while no read is under way that could still show these rows.
    pub(super) fn forget_gone(&mut self) {
        for key in self.gone.drain(..) {
            if let Some(work) = self.shards.get_mut(&key.shard) {
                work.note_gone(key);
            }
        }
    }
}
