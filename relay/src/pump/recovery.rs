//! The one answer to every failure, and the end.

use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;
use shared::runtime::killpoint::kill_point;
use shared::runtime::retry::full_jitter;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Event, Pump, TICK};
use crate::error::{Failure, RelayError};
use crate::publisher::{Publish, Token, is_about_the_record};

const RETRY_BASE: Duration = Duration::from_millis(50);
const RETRY_CAP: Duration = Duration::from_secs(5);

impl<P: Publish> Pump<P> {
    pub(super) fn connect(&mut self) -> Result<(), RelayError> {
        let (report, reports) = mpsc::unbounded_channel();
        self.publisher.connect(report)?;
        self.reports = reports;
        Ok(())
    }

    /// Destroys the producer, builds a new one, and reads every shard that is still ours from 0.
    ///
    /// Never sends on with the old one: a record after a hole would be out of order. Rows that were acknowledged stay
    /// unsettled until they are deleted; all others are sent again, in order, by the new producer.
    pub(super) async fn start_over(
        &mut self,
        failure: Failure,
        stop: &CancellationToken,
    ) -> Result<(), RelayError> {
        self.metrics
            .restarts
            .with_label_values(&[failure.code()])
            .inc();
        tracing::warn!(
            cause = failure.code(),
            "starting over with a new producer: {failure}"
        );
        let was_alone = self.unacked() == 1;
        kill_point("relay.before_purge");
        self.take_last_reports().await;
        self.era += 1;
        self.topics.forget();
        for work in self.shards.values_mut() {
            work.start_over();
        }
        self.drop_lost(Instant::now());
        self.judge_refused(was_alone).await;
        let pause = full_jitter(self.failures_in_a_row, RETRY_BASE, RETRY_CAP);
        self.failures_in_a_row += 1;
        stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        self.connect()
    }

    async fn take_last_reports(&mut self) {
        self.publisher.destroy().await;
        let mut reports = Vec::new();
        while let Ok(report) = self.reports.try_recv() {
            reports.push(report);
        }
        // That records were not delivered is known; what counts is which were, and what is said about the others.
        let _ = self.settle(&reports);
    }

    pub(super) fn note_undelivered(&mut self, token: Token, code: RDKafkaErrorCode) {
        let work = self.shards.get(&token.shard());
        if let Some(sent) = work.and_then(|work| work.in_flight.get(token.number()))
            && is_about_the_record(code)
        {
            self.refused
                .push((sent.key, format!("refused by Kafka: {code:?}")));
        }
    }

    pub(super) fn note_brokers_down(&mut self) {
        let blocked = &self.metrics.no_broker;
        if self.unacked() > 0 && blocked.get() == 0 {
            blocked.set(1);
            tracing::error!("no broker can be reached; records stay queued, nothing is given up");
        }
    }

    pub(super) fn note_flowing(&mut self) {
        let blocked = &self.metrics.no_broker;
        if blocked.get() != 0 || self.failures_in_a_row > 0 {
            tracing::info!("records are delivered again");
            blocked.set(0);
            self.failures_in_a_row = 0;
        }
    }

    /// A broker refuses a whole batch for one record: each of its records is sent again alone. One that is refused
    /// alone is the culprit and is parked.
    async fn judge_refused(&mut self, was_alone: bool) {
        let refused = std::mem::take(&mut self.refused);
        match refused.as_slice() {
            [(key, reason)] if was_alone => {
                self.alone.remove(&key.event_id);
                self.park_refused(*key, reason.clone()).await;
            }
            several => {
                let since = Instant::now();
                self.alone
                    .extend(several.iter().map(|(key, _)| (key.event_id, since)));
            }
        }
    }

    /// No more reading: what is in flight is acknowledged and deleted, until it is done or the deadline has passed. Each
    /// shard is given up as soon as all of it is.
    pub(super) async fn drain(mut self) -> usize {
        let deadline = Instant::now() + self.args.drain();
        // Nobody takes the answer of a read under way: what it may still show need not be remembered.
        self.forget_gone();
        while Instant::now() < deadline && (self.unacked() > 0 || !self.deleter.is_empty()) {
            self.note_terms();
            if self.has_lost_with_records_in_flight(Instant::now()) {
                tracing::warn!("a lease was lost while flushing");
                break;
            }
            self.give_up_settled();
            self.deleter.hand_out(true);
            let look_up = deadline.min(Instant::now() + TICK);
            let outcome = match self.next_drained(look_up).await {
                Event::Reports(reports) => self.settle(&reports),
                Event::Deleted(keys) => {
                    self.note_deleted(keys);
                    self.forget_gone();
                    Ok(())
                }
                Event::Read(_) | Event::Tick => Ok(()),
                Event::Ended(_) => break,
            };
            if let Err(failure) = outcome {
                tracing::warn!(
                    cause = failure.code(),
                    "records could not be flushed: {failure}"
                );
                break;
            }
        }
        self.take_last_reports().await;
        let left = self.unsettled();
        self.session.close().await;
        left
    }

    async fn next_drained(&mut self, look_up: Instant) -> Event {
        let mut reports = Vec::new();
        tokio::select! {
            count = self.reports.recv_many(&mut reports, super::REPORTS) => match count {
                0 => Event::Ended("producer"),
                _ => Event::Reports(reports),
            },
            keys = self.deleter.deleted() => keys.map_or(Event::Ended("deleter"), Event::Deleted),
            () = tokio::time::sleep_until(look_up.into()) => Event::Tick,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser;
    use shared::domain::ids::{EventId, Shard};
    use tokio::sync::watch;

    use super::*;
    use crate::config::Cli;
    use crate::lease::{Held, Leases};
    use crate::metrics::Metrics;
    use crate::pending::RowKey;
    use crate::publisher::Kafka;
    use crate::reader::Ask;
    use crate::shard_work::ShardWork;

    /// Neither MySQL nor Kafka answers it: whatever it asked for stays under way.
    fn pump_alone(quit: &CancellationToken) -> Pump<Kafka> {
        let args = [
            "outbox-relay",
            "--database-url=mysql://u:p@127.0.0.1:1/d",
            "--kafka-brokers=127.0.0.1:1",
        ];
        let config = Cli::try_parse_from(args).expect("good").config;
        let options = config.db.options().expect("a good URL");
        let leases = Leases {
            me: "r".to_owned(),
            holdings: watch::channel(BTreeMap::new()).1,
            given_up: mpsc::unbounded_channel().0,
            patience: Duration::from_secs(1),
        };
        let kafka = Kafka::new(&config.kafka);
        Pump::new(config.pump, &options, kafka, leases, Metrics::new(), quit)
    }

    #[tokio::test]
    async fn p11_what_was_deleted_while_a_read_was_under_way_is_not_told_as_left_in_flight() {
        let quit = CancellationToken::new();
        let _quit_at_the_end = quit.clone().drop_guard();
        let mut pump = pump_alone(&quit);
        let key = RowKey {
            shard: Shard(3),
            id: 7,
            event_id: EventId::generate(),
        };
        let held = Held {
            epoch: 1,
            redrive_gen: 0,
            good_until: Instant::now() + Duration::from_secs(60),
            yielding: false,
        };
        let mut work = ShardWork::adopted(key.shard, held, 1);
        work.unsettled.insert(key.id);
        pump.shards.insert(key.shard, work);

        pump.reader.ask(Ask {
            ranges: Vec::new(),
            is_partial: false,
            era: 0,
        });
        pump.note_deleted(vec![key]);
        assert_eq!(pump.unsettled(), 1, "the read may still show it");
        assert_eq!(pump.drain().await, 0);
    }
}
