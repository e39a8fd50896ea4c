//! Work that is done for many callers at once: a transaction for many requests, a read of many rows.

use opentelemetry::trace::{FutureExt, WithContext};
use opentelemetry::{Context, KeyValue};

use super::{Span, SpanKind, is_on, span};
use crate::domain::trace_context::TraceContext;

/// The span of work for many. It is part of none of their traces: links lead to each of them. Nothing is recorded if none
/// of them is.
#[derive(Debug, Default)]
pub struct BatchSpan(Option<Batch>);

#[derive(Debug)]
struct Batch {
    span: Span,
    size: i64,
}

/// How many callers the statement of the present task is run for.
#[derive(Debug, Clone, Copy)]
struct Operations(i64);

/// `None`: for one, or it is no statement for a whole batch.
pub fn operations_of_statement() -> Option<i64> {
    let operations = Context::map_current(|current| current.get::<Operations>().copied());
    operations
        .map(|Operations(size)| size)
        .filter(|size| *size > 1)
}

impl BatchSpan {
    /// `counted_as`: the attribute that says for how many it is, whether or not their traces are recorded.
    pub fn of_contexts<'c>(
        name: &'static str,
        counted_as: &'static str,
        contexts: impl IntoIterator<Item = Option<&'c TraceContext>>,
    ) -> Self {
        if !is_on() {
            return Self::default();
        }
        let mut size = 0;
        let counted = contexts.into_iter().inspect(|_| size += 1);
        let sampled = counted.flatten().filter(|one| one.is_sampled());
        let sampled: Vec<&TraceContext> = sampled.collect();
        if sampled.is_empty() {
            return Self::default();
        }
        let span = span(SpanKind::Internal, name).linked_to(sampled).start();
        span.set(|| [KeyValue::new(counted_as, size)]);
        Self(span.is_recorded().then_some(Batch { span, size }))
    }

    /// Each of the spans leads to it, too.
    pub fn of_spans<'s>(
        name: &'static str,
        counted_as: &'static str,
        spans: impl IntoIterator<Item = &'s Span>,
    ) -> Self {
        let spans: Vec<&Span> = spans.into_iter().collect();
        let contexts = spans.iter().map(|span| Some(span.context()));
        let batch = Self::of_contexts(name, counted_as, contexts);
        if let Some(context) = batch.context() {
            for span in spans {
                span.link_to(context);
            }
        }
        batch
    }

    pub fn context(&self) -> Option<&TraceContext> {
        self.0.as_ref().map(|batch| batch.span.context())
    }

    /// Runs the work: statements and calls are its children.
    pub fn scope<F: Future>(&self, work: F) -> WithContext<F> {
        work.with_context(self.within())
    }

    /// Runs a statement that is for all of them.
    pub fn scope_of_statement<F: Future>(&self, statement: F) -> WithContext<F> {
        let within = self.within();
        statement.with_context(match &self.0 {
            Some(batch) => within.with_value(Operations(batch.size)),
            None => within,
        })
    }

    fn within(&self) -> Context {
        let batch = self.0.as_ref();
        batch.map_or_else(Context::current, |batch| batch.span.otel())
    }
}
