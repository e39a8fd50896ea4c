//! Filing a return: the heart of the api. Many requests, few transactions.
//!
//! Requests that wait while a transaction is in flight are taken together into the next one (group commit). A single
//! request is filed at once, so an idle service adds no wait. InnoDB groups only the log flush of transactions that
//! already ran; group commit also shares their statements and round trips (docs/adr/0004).
//!
//! Must stay true: a client that disconnects cancels nothing half way, because writers are tasks of their own; a group
//! contains an order and an idempotency key at most once; a locked order delays only its own request; a 201 is sent
//! only after COMMIT succeeded; if the response to COMMIT is lost, the writer looks the rows up and never repeats them.

mod group;
mod writer;
mod writer_queue;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use serde::{Deserialize, Serialize};
use shared::domain::eligibility::PolicyArgs;
use shared::domain::event::TopicArgs;
use shared::domain::ids::{CustomerId, OrderId, ReturnId};
use shared::domain::status::Status;
use shared::domain::transition::Cause;
use shared::runtime::db::Database;
use shared::runtime::tasks::Stage;
use shared::runtime::trace::{self, KeyValue, Span, SpanKind, names};
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;

use crate::backlog::Gate;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::store::IdempotencyKey;

/// Group commit.
#[derive(Debug, Clone, Args)]
pub struct FilingArgs {
    /// The most filings in one transaction. 1 turns group commit off; more than 64 makes each filing wait longer without
    /// more throughput.
    #[arg(long, env = "FILING_BATCH_MAX", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub filing_batch_max: u16,

    /// Group transactions in flight. Each has a connection in addition to DATABASE_MAX_CONNECTIONS, as have eight more
    /// for filings that wait for a lock. With two, MySQL is busy while one transaction ends; more make the groups smaller.
    #[arg(long, env = "FILING_WRITERS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub filing_writers: u16,

    /// Filings that may wait for a transaction; the next one gets 503 with Retry-After. Too low refuses bursts; too
    /// high lets clients wait for a response that they no longer want.
    #[arg(long, env = "FILING_QUEUE", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub filing_queue: u32,
}

/// A validated request to file a return.
#[derive(Debug, Clone)]
pub(crate) struct FilingRequest {
    pub(crate) customer: CustomerId,
    /// The admin who files it for the customer.
    pub(crate) filed_by: Option<i64>,
    pub(crate) order: OrderId,
    pub(crate) reason: String,
    pub(crate) reason_code: Option<String>,
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) cause: Cause,
}

/// A filed return, with the body of the response. A retry under the same key gets the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) return_id: ReturnId,
    pub(crate) body: Bytes,
    /// An earlier request stored it under the idempotency key.
    pub(crate) replayed: bool,
}

/// The response to a filing.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Filed)]
pub(crate) struct ReceiptBody {
    #[schema(value_type = i64, minimum = 1, example = 456)]
    return_id: ReturnId,
    /// `initiated`. `GET /returns/{id}` shows the present status.
    status: Status,
}

impl Receipt {
    fn new(return_id: ReturnId) -> Self {
        let body = serde_json::to_vec(&ReceiptBody {
            return_id,
            status: Status::Initiated,
        })
        .expect("an id and a status always serialize");
        Self {
            return_id,
            body: body.into(),
            replayed: false,
        }
    }

    /// The receipt that was stored under an idempotency key.
    fn stored(body: Bytes) -> Result<Self, ApiError> {
        let parsed: ReceiptBody = serde_json::from_slice(&body).map_err(|error| {
            tracing::error!(%error, "a stored response cannot be read");
            ApiError::Internal
        })?;
        Ok(Self {
            return_id: parsed.return_id,
            body,
            replayed: true,
        })
    }
}

/// A request in the filing queue, and the channel for its result.
#[derive(Debug)]
struct Job {
    request: Arc<FilingRequest>,
    result: oneshot::Sender<Result<Receipt, ApiError>>,
    deadline: Instant,
    /// `outbox.write`
    span: Span,
}

impl Job {
    /// If the client has disconnected, the result is dropped and the row stays.
    fn finish(self, result: Result<Receipt, ApiError>) {
        let _ = self.result.send(result);
    }

    /// The client has disconnected or its deadline has passed: no transaction is begun for it.
    fn is_abandoned(&self) -> bool {
        self.result.is_closed()
    }

    fn is_late(&self) -> bool {
        self.deadline <= Instant::now()
    }
}

/// What the filing queue works with.
#[derive(Debug)]
pub(crate) struct Filing {
    pub(crate) args: FilingArgs,
    /// For a request, from the queue to its result.
    pub(crate) timeout: Duration,
    pub(crate) topics: TopicArgs,
    pub(crate) policy: PolicyArgs,
    pub(crate) db: Database,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) gate: Gate,
}

/// Takes filings from handlers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct FilingQueue {
    jobs: mpsc::Sender<Job>,
    filing: Arc<Filing>,
}

impl FilingQueue {
    /// Starts the writers. They end when `stage` stops and the queue is empty.
    pub(crate) fn start(filing: Filing, stage: &mut Stage) -> Self {
        let capacity = usize::try_from(filing.args.filing_queue).expect("bounded by the setting");
        let (jobs, waiting) = mpsc::channel(capacity);
        let filing = Arc::new(filing);
        writer::start(Arc::clone(&filing), waiting, stage);
        Self { jobs, filing }
    }

    /// Files one return and waits for its COMMIT. Cancel-safe: once its transaction has begun, a request is written
    /// whether or not its client still waits.
    ///
    /// # Errors
    /// [`ApiError::Busy`] at once when the queue is full, [`ApiError::BacklogFull`] while too much waits to be
    /// published; otherwise the decision about the request.
    pub(crate) async fn file(&self, mut request: FilingRequest) -> Result<Receipt, ApiError> {
        let span = trace::span(SpanKind::Internal, "outbox.write")
            .child_of(&request.cause.trace)
            .start();
        let _until_end = span.cancel_on_drop();
        // The event is a child of what wrote it.
        request.cause.trace = span.context().clone();
        let result = self.queue_and_wait(request, &span).await;
        let outcome = match &result {
            Ok(receipt) if receipt.replayed => "replayed",
            Ok(_) => "filed",
            Err(error) => error.code(),
        };
        match &result {
            Ok(receipt) => span.set(|| [KeyValue::new(names::RETURN_ID, receipt.return_id.0)]),
            Err(error) => span.fail(error.code()),
        }
        span.end();
        let metrics = &self.filing.metrics.filing;
        metrics.outcomes.with_label_values(&[outcome]).inc();
        if let Err(ApiError::BacklogFull(excess)) = &result {
            metrics.refused.with_label_values(&[excess.code()]).inc();
        }
        result
    }

    async fn queue_and_wait(
        &self,
        request: FilingRequest,
        span: &Span,
    ) -> Result<Receipt, ApiError> {
        let deadline = Instant::now() + self.filing.timeout;
        self.filing.gate.measured(deadline).await;
        // A request with a key may be a retry of a filing that has a response. Only the group's transaction knows.
        if request.key.is_none() {
            self.filing.gate.admit()?;
        }
        let (sender, result) = oneshot::channel();
        let job = Job {
            request: Arc::new(request),
            result: sender,
            deadline,
            span: span.clone(),
        };
        let queue_length = &self.filing.metrics.filing.queue_length;
        queue_length.inc();
        if self.jobs.try_send(job).is_err() {
            queue_length.dec();
            return Err(ApiError::Busy);
        }
        // After the deadline, or if the writer ended: it is not known whether the row was or will be written.
        match tokio::time::timeout_at(deadline.into(), result).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(ApiError::OutcomeUnknown),
        }
    }
}
