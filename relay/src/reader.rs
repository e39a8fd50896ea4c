//! The reading connection: one read at a time, asked for ahead of need.

use std::time::Duration;

use shared::runtime::retry::full_jitter;
use sqlx::mysql::MySqlConnectOptions;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::PumpArgs;
use crate::error::StoreError;
use crate::metrics::Metrics;
use crate::session::Session;
use crate::store::{self, Batch, Range, ReadLimit};

/// A read of a full batch takes milliseconds; an answer later than this is of no use.
const DEADLINE: Duration = Duration::from_secs(5);
const RETRY_BASE: Duration = Duration::from_millis(50);
const RETRY_CAP: Duration = Duration::from_secs(2);

/// What was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) ranges: Vec<Range>,
    /// Some shards were left out; they are next, at once.
    pub(crate) is_partial: bool,
    /// Tells the pump whether the answer still fits its state.
    pub(crate) era: u64,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) ask: Ask,
    pub(crate) batch: Batch,
}

/// The pump's end.
#[derive(Debug)]
pub(crate) struct Reader {
    asks: mpsc::UnboundedSender<Ask>,
    answers: mpsc::UnboundedReceiver<Answer>,
    busy: bool,
}

impl Reader {
    pub(crate) fn spawn(
        options: MySqlConnectOptions,
        args: &PumpArgs,
        metrics: Metrics,
        quit: CancellationToken,
    ) -> Self {
        let (asks, asked) = mpsc::unbounded_channel();
        let (answer, answers) = mpsc::unbounded_channel();
        let task = Task {
            session: Session::new(options, DEADLINE),
            most: usize::from(args.batch_rows),
            limit: ReadLimit {
                rows: usize::from(args.batch_rows),
                bytes: usize::from(args.batch_kib) * 1024,
            },
            metrics,
        };
        tokio::spawn(task.run(asked, answer, quit));
        Self {
            asks,
            answers,
            busy: false,
        }
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    pub(crate) fn ask(&mut self, ask: Ask) {
        debug_assert!(!self.busy);
        // A closed channel shows at the next `answer`.
        self.busy = self.asks.send(ask).is_ok();
    }

    /// The answer to the last ask; waits for ever if there was none. `None`: the reader is gone. Cancel-safe.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        let answer = self.answers.recv().await;
        self.busy = false;
        answer
    }
}

struct Task {
    session: Session,
    most: usize,
    limit: ReadLimit,
    metrics: Metrics,
}

impl Task {
    async fn run(
        mut self,
        mut asked: mpsc::UnboundedReceiver<Ask>,
        answer: mpsc::UnboundedSender<Answer>,
        quit: CancellationToken,
    ) {
        while let Some(Some(ask)) = quit.run_until_cancelled(asked.recv()).await {
            let mut attempt = 0;
            let batch = loop {
                match self.read(ask.ranges.clone()).await {
                    Ok(batch) => break batch,
                    Err(error) => self.metrics.database_error("read", &error),
                }
                let pause = tokio::time::sleep(full_jitter(attempt, RETRY_BASE, RETRY_CAP));
                if quit.run_until_cancelled(pause).await.is_none() {
                    return;
                }
                attempt += 1;
            };
            if answer.send(Answer { ask, batch }).is_err() {
                break;
            }
        }
        self.session.close().await;
    }

    async fn read(&mut self, ranges: Vec<Range>) -> Result<Batch, StoreError> {
        let limit = self.limit;
        let batch = self
            .session
            .run(move |mut conn| async move {
                let batch = store::read_pending(&mut conn, &ranges, limit).await;
                (conn, batch)
            })
            .await;
        // Large events: ask for fewer, so that the server does not send what would be thrown away. So many of them may
        // not even arrive in time.
        self.limit.rows = match &batch {
            Ok(batch) if batch.over_bytes => batch.rows.len(),
            Ok(_) => (limit.rows * 2).min(self.most),
            Err(_) => (limit.rows / 2).max(1),
        };
        batch
    }
}
