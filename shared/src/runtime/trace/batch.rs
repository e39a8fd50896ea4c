//! Work that is done for many callers at once: a transaction for many requests, a read of many rows.

use opentelemetry::KeyValue;

use super::{Span, SpanKind, is_on, names, span};
use crate::domain::trace_context::TraceContext;

/// The span of work for many. It is part of none of their traces: links lead to each of them. Nothing is recorded if none
/// of them is.
#[derive(Debug, Default)]
pub struct Batch(Option<Span>);

impl Batch {
    pub fn of_contexts<'c>(
        name: &'static str,
        contexts: impl IntoIterator<Item = &'c TraceContext>,
    ) -> Self {
        if !is_on() {
            return Self::default();
        }
        let sampled = contexts.into_iter().filter(|one| one.is_sampled());
        let sampled: Vec<&TraceContext> = sampled.collect();
        if sampled.is_empty() {
            return Self::default();
        }
        let size = i64::try_from(sampled.len()).unwrap_or(i64::MAX);
        let batch = span(SpanKind::Internal, name).linked_to(sampled).start();
        batch.set(|| [KeyValue::new(names::BATCH_SIZE, size)]);
        Self(Some(batch))
    }

    /// Each of the spans leads to it, too.
    pub fn of_spans<'s>(name: &'static str, spans: impl IntoIterator<Item = &'s Span>) -> Self {
        let spans = spans.into_iter().filter(|span| span.is_recorded());
        let spans: Vec<&Span> = spans.collect();
        let batch = Self::of_contexts(name, spans.iter().map(|span| span.context()));
        if let Some(context) = batch.context() {
            for span in spans {
                span.link_to(context);
            }
        }
        batch
    }

    pub fn context(&self) -> Option<&TraceContext> {
        self.0.as_ref().map(Span::context)
    }

    /// Runs the work: statements and calls are its children.
    pub async fn scope<F: Future>(&self, work: F) -> F::Output {
        match &self.0 {
            Some(span) => span.scope(work).await,
            None => work.await,
        }
    }
}
