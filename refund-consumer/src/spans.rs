//! The spans of refunds: what became of a record, and each attempt. They are two, because the process that claims a
//! return may not be the one that pays it.

use shared::domain::trace_context::TraceContext;
use shared::runtime::trace::{self, KeyValue, Span, SpanKind, messaging, names};

use crate::attempt::{OwnedAttempt, SendState};
use crate::message::Record;

/// `process <topic>`: a child of the record's sender, which it also leads to. A record that a person sent again begins a
/// trace of its own: the old one may have ended days ago.
pub(crate) fn process(record: &Record, sender: Option<&TraceContext>, group: &str) -> Span {
    let parent = sender.filter(|_| !record.is_redriven());
    let span = trace::span(SpanKind::Consumer, "process")
        .child_of(parent)
        .linked_to(sender)
        .start();
    if span.is_recorded() {
        span.rename(format!("process {}", record.topic));
    }
    span.set(|| {
        let key = record.key.as_deref();
        let key = key.and_then(|key| str::from_utf8(key).ok());
        messaging::attributes("process", &record.topic, record.partition, key).chain([
            KeyValue::new(names::MESSAGING_KAFKA_OFFSET, record.offset),
            KeyValue::new(names::MESSAGING_CONSUMER_GROUP_NAME, group.to_owned()),
        ])
    });
    span
}

/// `refund`: one attempt, from the moment this process has it until its outcome is written. A later attempt leads to what
/// ended the one before.
///
/// `recheck`: the question, up to thirty days later, whether a payment still stands. It begins a trace that leads to the
/// refund's, unless that one is not recorded.
pub(crate) fn refund(attempt: &OwnedAttempt) -> Span {
    let parent = attempt.trace.as_ref();
    let is_recheck = matches!(attempt.sent, SendState::Paid { .. });
    let new = if is_recheck && trace::is_on() && parent.is_some_and(TraceContext::is_sampled) {
        trace::span(SpanKind::Internal, "recheck").linked_to(parent)
    } else {
        trace::span(SpanKind::Internal, "refund").child_of(parent)
    };
    let span = new.linked_to(&attempt.earlier).start();
    span.set(|| {
        [
            KeyValue::new(names::RETURN_ID, attempt.id.return_id.0),
            KeyValue::new(names::REFUND_ATTEMPT, i64::from(attempt.id.number)),
        ]
    });
    span
}
