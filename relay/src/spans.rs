//! The spans of an event on its way through the relay: the time in the outbox, and each attempt to send it.
//!
//! Each row's context comes from the row, never from the loop that serves many of them. A row without a context, or with
//! a broken one, begins a trace.
//!
//! A row waits until the producer takes its record. If it is sent again by the same relay, it does not wait again: the
//! further attempt stands beside the first one. Another relay knows nothing of that one, and says how long the row has been
//! in the outbox until its own attempt.

use rdkafka::error::RDKafkaErrorCode;
use shared::domain::trace_context::TraceContext;
use shared::runtime::trace::{
    self, BatchSpan, CancelOnDrop, KeyValue, Span, SpanKind, messaging, names,
};

use crate::pending::Pending;

/// One attempt to send a row.
#[derive(Debug, Default)]
pub(crate) struct SendSpan {
    /// What the record carries. `None`: the row's own context.
    context: Option<TraceContext>,
    recorded: Option<Attempt>,
}

#[derive(Debug)]
struct Attempt {
    wait: Wait,
    send: Span,
    _until_end: CancelOnDrop,
}

/// The time in the outbox.
#[derive(Debug)]
enum Wait {
    UnderWay(Span),
    /// It ended with an earlier attempt.
    Over(TraceContext),
}

/// Rows that are sent together.
pub(crate) fn batch_of(rows: &[Pending]) -> BatchSpan {
    let contexts = rows.iter().map(|row| row.trace.as_ref());
    BatchSpan::of_contexts(
        "relay.batch",
        names::MESSAGING_BATCH_MESSAGE_COUNT,
        contexts,
    )
}

impl SendSpan {
    /// `partition`: where the record goes. `waited`: the wait that ended with an earlier attempt.
    pub(crate) fn begin(
        row: &Pending,
        partition: usize,
        batch: &BatchSpan,
        waited: Option<&TraceContext>,
    ) -> Self {
        if !trace::is_on() {
            return Self::default();
        }
        let wait = match waited.filter(|waited| is_of(waited, row)) {
            Some(waited) => Wait::Over(waited.clone()),
            None => Wait::UnderWay(begin_wait(row)),
        };
        if !wait.context().is_sampled() {
            return Self {
                context: Some(wait.context().clone()),
                recorded: None,
            };
        }
        let send = trace::span(SpanKind::Producer, format!("send {}", row.topic))
            .child_of(wait.context())
            .linked_to(batch.context())
            .start();
        send.set(|| {
            let (event, of_return) = (row.key.event_id.to_string(), row.return_id.to_string());
            messaging::attributes("send", &row.topic, partition, Some(&row.msg_key)).chain([
                KeyValue::new(names::MESSAGING_MESSAGE_ID, event),
                KeyValue::new(names::MESSAGING_MESSAGE_CONVERSATION_ID, of_return),
            ])
        });
        Self {
            context: Some(send.context().clone()),
            recorded: Some(Attempt {
                wait,
                _until_end: send.cancel_on_drop(),
                send,
            }),
        }
    }

    /// What the record carries, unless it is the row's own.
    pub(crate) fn context(&self) -> Option<&TraceContext> {
        self.context.as_ref()
    }

    /// The producer has taken the record.
    pub(crate) fn enqueued(&self, row: &Pending) {
        if let Some(Wait::UnderWay(wait)) = self.recorded.as_ref().map(|attempt| &attempt.wait) {
            wait.set(|| {
                let waited = row.created.elapsed().as_millis();
                let waited = i64::try_from(waited).unwrap_or(i64::MAX);
                [KeyValue::new(names::OUTBOX_WAIT_MS, waited)]
            });
            wait.end();
        }
    }

    /// The producer has not taken the record, so nothing was sent and the row still waits.
    pub(crate) fn forget(self) {
        if let Some(attempt) = self.recorded {
            attempt.send.forget();
            if let Wait::UnderWay(wait) = attempt.wait {
                wait.forget();
            }
        }
    }

    pub(crate) fn acknowledged(self) {
        if let Some(attempt) = self.recorded {
            attempt.send.end();
        }
    }

    /// Kafka has refused the record.
    pub(crate) fn fail(&self, code: RDKafkaErrorCode) {
        if let Some(attempt) = &self.recorded {
            attempt.send.fail(format!("{code:?}"));
            attempt.send.end();
        }
    }

    /// For the next attempt, once the producer of this one is destroyed.
    pub(crate) fn waited(&self) -> Option<TraceContext> {
        let attempt = self.recorded.as_ref();
        attempt.map(|attempt| attempt.wait.context().clone())
    }
}

impl Wait {
    fn context(&self) -> &TraceContext {
        match self {
            Self::UnderWay(span) => span.context(),
            Self::Over(context) => context,
        }
    }
}

fn begin_wait(row: &Pending) -> Span {
    let wait = trace::span(SpanKind::Internal, "outbox.wait")
        .child_of(row.trace.as_ref())
        .since(row.created)
        .start();
    let event = row.key.event_id;
    wait.set(|| {
        [KeyValue::new(
            names::MESSAGING_MESSAGE_ID,
            event.to_string(),
        )]
    });
    wait
}

/// A row that an operator has put back meanwhile has another trace.
fn is_of(waited: &TraceContext, row: &Pending) -> bool {
    let trace = row.trace.as_ref();
    trace.is_none_or(|trace| trace.trace_id() == waited.trace_id())
}
