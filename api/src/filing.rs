//! Filing a return: the heart of the api. Many requests, few transactions.
//!
//! Requests that wait while a transaction is in flight are taken together into the next one (group commit); a lone
//! request goes straight through, so an idle service adds no wait. The use case takes a slice; a single filing is a
//! slice of one. InnoDB groups only the log flush of transactions that already ran; this also shares their
//! statements and round trips (docs/adr/0004).
//!
//! Must stay true: a client that hangs up cancels nothing half way, because writers are tasks of their own; a
//! group holds one order and one idempotency key at most once; one locked order stalls nobody but its own request;
//! nobody is answered 201 before COMMIT was, and a COMMIT whose answer was lost is looked up, never repeated.

mod group;
mod writer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shared::domain::ids::{CustomerId, OrderId, ReturnId};
use shared::domain::status::Status;
use shared::domain::transition::Cause;
use sqlx::mysql::MySqlConnectOptions;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::backlog::Gate;
use crate::config::Config;
use crate::error::ApiError;
use crate::idempotency::IdempotencyKey;
use crate::metrics::Metrics;

/// A checked request to file a return.
#[derive(Debug, Clone)]
pub struct FilingRequest {
    pub customer: CustomerId,
    pub order: OrderId,
    pub reason: String,
    pub reason_code: Option<String>,
    pub key: Option<IdempotencyKey>,
    pub cause: Cause,
}

/// A filed return: the answer's body, which a repeat under the same key gets byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub return_id: ReturnId,
    pub body: Bytes,
    /// Stored under the idempotency key by an earlier request.
    pub replayed: bool,
}

/// The answer to a filing.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Filed)]
pub(crate) struct ReceiptBody {
    #[schema(value_type = i64, minimum = 1, example = 456)]
    return_id: ReturnId,
    /// `initiated`: what becomes of it, `GET /returns/{id}` tells.
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
            tracing::error!(%error, "a stored answer cannot be read");
            ApiError::Internal
        })?;
        Ok(Self {
            return_id: parsed.return_id,
            body,
            replayed: true,
        })
    }
}

/// A request and where its answer goes.
#[derive(Debug)]
struct Job {
    request: Arc<FilingRequest>,
    reply: oneshot::Sender<Result<Receipt, ApiError>>,
    deadline: Instant,
}

impl Job {
    /// The client may be gone by now; then the answer is dropped and the row stands.
    fn answer(self, answer: Result<Receipt, ApiError>) {
        let _ = self.reply.send(answer);
    }

    /// Nobody waits for the answer any more: not worth a transaction that has not begun.
    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn is_late(&self) -> bool {
        self.deadline <= Instant::now()
    }
}

/// Where handlers hand in filings.
#[derive(Debug, Clone)]
pub struct FilingDesk {
    queue: mpsc::Sender<Job>,
    gate: Gate,
    metrics: Arc<Metrics>,
    timeout: Duration,
}

impl FilingDesk {
    /// Starts the writers. They end once `closing` is cancelled and the queue is empty.
    pub(crate) fn open(
        cfg: &Config,
        options: MySqlConnectOptions,
        metrics: Arc<Metrics>,
        gate: Gate,
        closing: CancellationToken,
    ) -> (Self, JoinSet<()>) {
        let capacity = usize::try_from(cfg.filing.filing_queue).expect("bounded by the setting");
        let (queue, jobs) = mpsc::channel(capacity);
        let desk = Self {
            queue,
            gate: gate.clone(),
            metrics: Arc::clone(&metrics),
            timeout: cfg.http.request_timeout(),
        };
        let tasks = writer::start(cfg, options, metrics, gate, jobs, closing);
        (desk, tasks)
    }

    /// Files one return and waits for its COMMIT. Cancel-safe: a request whose transaction has begun is written
    /// whether or not anybody waits for the answer.
    ///
    /// # Errors
    /// [`ApiError::Busy`] at once when the queue is full, [`ApiError::BacklogFull`] while too much waits to be
    /// published; otherwise what the use case decided.
    pub async fn file(&self, request: FilingRequest) -> Result<Receipt, ApiError> {
        let answer = self.queue_and_wait(request).await;
        let outcome = match &answer {
            Ok(receipt) if receipt.replayed => "replayed",
            Ok(_) => "filed",
            Err(error) => error.code(),
        };
        self.metrics
            .filing_outcomes
            .with_label_values(&[outcome])
            .inc();
        if let Err(ApiError::BacklogFull(excess)) = &answer {
            self.metrics.backlog.refused(excess.code());
        }
        answer
    }

    async fn queue_and_wait(&self, request: FilingRequest) -> Result<Receipt, ApiError> {
        // With a key it may repeat a filing that was answered; whether it does is known in the group's transaction.
        if request.key.is_none() {
            self.gate.admit()?;
        }
        let (reply, answer) = oneshot::channel();
        let deadline = Instant::now() + self.timeout;
        let job = Job {
            request: Arc::new(request),
            reply,
            deadline,
        };
        self.metrics.queue_length.inc();
        if self.queue.try_send(job).is_err() {
            self.metrics.queue_length.dec();
            return Err(ApiError::Busy);
        }
        // Out of time, or the writer broke off: whether the row was or will be written is not known.
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(ApiError::OutcomeUnknown),
        }
    }
}
