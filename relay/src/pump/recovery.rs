//! The reaction to every [`RestartCause`]: a new producer.

use shared::runtime::clock::Moment;
use shared::runtime::killpoint::kill_point;
use tokio_util::sync::CancellationToken;

use super::Pump;
use crate::error::{RelayError, RestartCause};
use crate::publisher::Publish;

impl<P: Publish> Pump<P> {
    /// Destroys the producer, creates a new one, and reads every shard that is still owned from 0.
    ///
    /// The old producer must not send on: a record after a gap would be out of order. Acknowledged rows stay unsettled
    /// until they are deleted. The new producer sends all others again, in order.
    pub(super) async fn restart_producer(
        &mut self,
        cause: RestartCause,
        stop: &CancellationToken,
    ) -> Result<(), RelayError> {
        self.delivery.note_restart(&cause);
        kill_point("relay.before_purge");
        self.destroy_producer().await;
        self.reads.invalidate();
        self.delivery.forget_topics();
        self.owned.reset_in_flight();
        self.owned.drop_lost(Moment::now());
        if let Some((key, reason)) = self.delivery.isolate_refused() {
            self.park_refused(key, reason).await;
        }
        let pause = tokio::time::sleep(self.delivery.next_backoff());
        stop.run_until_cancelled(pause).await;
        Ok(self.delivery.connect()?)
    }

    pub(super) async fn destroy_producer(&mut self) {
        let reports = self.delivery.destroy().await;
        // Its failures need no further reaction. The other reports show which records were delivered or refused.
        let _ = self.settle(&reports);
    }
}
