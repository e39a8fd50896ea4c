//! Reads the outbox on its own connection, one read at a time, while the pump sends the rows of the read before.

use std::time::Duration;

use shared::runtime::db::{Database, DbError};
use shared::runtime::tasks::Backoff;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::PumpArgs;
use crate::metrics::{Metrics, WorkMonitor};
use crate::store::outbox::{self, Batch, ReadLimit, ShardRange};

/// A read of a full batch takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(5);
const BACKOFF: Backoff = Backoff {
    base: Duration::from_millis(50),
    cap: Duration::from_secs(2),
};

#[derive(Debug, Clone)]
pub(crate) struct ReadRequest {
    pub(crate) ranges: Vec<ShardRange>,
    /// Some shards were left out; the next read begins with them, without a pause.
    pub(crate) is_partial: bool,
    /// The generation of the pump's state that this read belongs to.
    pub(crate) generation: u64,
}

#[derive(Debug)]
pub(crate) struct ReadResult {
    pub(crate) request: ReadRequest,
    pub(crate) batch: Batch,
}

/// The pump's side.
#[derive(Debug)]
pub(crate) struct OutboxReader {
    requests: mpsc::UnboundedSender<ReadRequest>,
    results: mpsc::UnboundedReceiver<ReadResult>,
    is_reading: bool,
}

impl OutboxReader {
    pub(crate) fn new(database: Database, args: &PumpArgs, metrics: &Metrics) -> (Self, ReadTask) {
        let (requests, requested) = mpsc::unbounded_channel();
        let (done, results) = mpsc::unbounded_channel();
        let task = ReadTask {
            requests: requested,
            done,
            database,
            max_rows: usize::from(args.batch_rows),
            limit: ReadLimit {
                rows: usize::from(args.batch_rows),
                bytes: usize::from(args.batch_kib) * 1024,
            },
            monitor: metrics.monitor("read", "reading the outbox"),
        };
        let reader = Self {
            requests,
            results,
            is_reading: false,
        };
        (reader, task)
    }

    pub(crate) fn is_reading(&self) -> bool {
        self.is_reading
    }

    pub(crate) fn request(&mut self, request: ReadRequest) {
        debug_assert!(!self.is_reading);
        // If the task has ended, `result` returns `None`.
        self.is_reading = self.requests.send(request).is_ok();
    }

    /// The result of the last request; waits for ever without one. `None`: the task has ended. Cancel-safe.
    pub(crate) async fn result(&mut self) -> Option<ReadResult> {
        let result = self.results.recv().await;
        self.is_reading = false;
        result
    }
}

#[derive(Debug)]
pub(crate) struct ReadTask {
    requests: mpsc::UnboundedReceiver<ReadRequest>,
    done: mpsc::UnboundedSender<ReadResult>,
    database: Database,
    max_rows: usize,
    limit: ReadLimit,
    monitor: WorkMonitor,
}

impl ReadTask {
    /// Serves requests until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while let Some(Some(request)) = stop.run_until_cancelled(self.requests.recv()).await {
            let read = self.read_with_retries(&request);
            let Some(batch) = stop.run_until_cancelled(read).await else {
                break;
            };
            if self.done.send(ReadResult { request, batch }).is_err() {
                break;
            }
        }
        self.database.close().await;
    }

    async fn read_with_retries(&mut self, request: &ReadRequest) -> Batch {
        let mut attempt = 0;
        loop {
            let read = self.read(request.ranges.clone()).await;
            if let Some(batch) = self.monitor.note(read) {
                return batch;
            }
            tokio::time::sleep(BACKOFF.pause(attempt)).await;
            attempt += 1;
        }
    }

    async fn read(&mut self, ranges: Vec<ShardRange>) -> Result<Batch, DbError> {
        let limit = self.limit;
        let batch: Result<Batch, DbError> = self
            .database
            .run("read_pending", DEADLINE, move |conn| {
                Box::pin(async move { Ok(outbox::read_pending(conn, &ranges, limit).await?) })
            })
            .await;
        // With large events, request fewer rows: the server would send rows that are thrown away, or that do not arrive
        // before the deadline.
        self.limit.rows = match &batch {
            Ok(batch) if batch.is_over_bytes => batch.rows.len(),
            Ok(_) => (limit.rows * 2).min(self.max_rows),
            Err(_) => (limit.rows / 2).max(1),
        };
        batch
    }
}
