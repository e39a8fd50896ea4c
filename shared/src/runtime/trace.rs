//! Spans: what this program did within a trace, and when.
//!
//! Nothing is recorded without an OTLP endpoint, or if the caller's trace is not sampled. Then the context is passed on as
//! it came: a span id that nobody recorded would leave the spans of other programs without their parent.
//!
//! The parent of a span is named, never taken from the task that happens to run: a loop that serves many messages would
//! tie each of them to the one before. Only statements and calls within one span take it from their task ([`child`]).

mod batch;
mod export;
pub mod messaging;
pub mod names;
mod sampler;
mod setup;
mod standard;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use opentelemetry::Context;
pub use opentelemetry::KeyValue;
pub use opentelemetry::trace::SpanKind;
use opentelemetry::trace::{
    FutureExt, Link, SpanBuilder, SpanContext, SpanId, Status, TraceContextExt, TraceFlags,
    TraceId, TraceState, WithContext,
};
use opentelemetry_sdk::trace::SdkTracer;

pub use self::batch::{BatchSpan, operations_of_statement};
pub use self::export::{exported_spans, lost_spans};
#[cfg(feature = "test-support")]
pub(crate) use self::setup::record_to;
pub use self::setup::{Flush, TraceArgs, init};
use crate::domain::trace_context::TraceContext;

/// Set once spans are recorded.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// The most links of a span; the SDK drops what is above.
const MAX_LINKS: usize = 128;
const ATTRIBUTE_CHARS: usize = 256;

/// A span, or the caller's context where nothing is recorded. It ends when it is dropped with all its clones.
#[derive(Debug, Clone)]
pub struct Span {
    context: TraceContext,
    recorded: Option<Context>,
}

/// A span that has not begun.
#[derive(Debug)]
#[must_use]
pub struct NewSpan<'a> {
    builder: SpanBuilder,
    parent: Option<&'a TraceContext>,
    links: Vec<Link>,
}

/// Without a parent it begins a trace.
pub fn span<'a>(kind: SpanKind, name: impl Into<Cow<'static, str>>) -> NewSpan<'a> {
    NewSpan {
        builder: SpanBuilder::from_name(name).with_kind(kind),
        parent: None,
        links: Vec::new(),
    }
}

/// Whether anything is recorded.
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// A span within the one that the present task works for. `None`: nothing is recorded here.
pub fn child(kind: SpanKind, name: impl Into<Cow<'static, str>>) -> Option<Span> {
    let tracer = TRACER.get()?;
    Context::map_current(|current| {
        let parent = current.span();
        parent.span_context().is_sampled().then(|| {
            let builder = SpanBuilder::from_name(name).with_kind(kind);
            Span::recorded(builder.start_with_context(tracer, current))
        })
    })
}

/// A link from the span that the present task works for.
pub fn link_current(context: &TraceContext) {
    Context::map_current(|current| {
        if current.span().is_recording() {
            current.span().add_link(span_context(context), Vec::new());
        }
    });
}

/// Text of a stranger as an attribute: a span must not take the memory of a thousand.
pub fn clipped(text: &str) -> String {
    text.chars().take(ATTRIBUTE_CHARS).collect()
}

/// What the log lines of the present task carry.
#[derive(Debug, Clone)]
pub struct Ids {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub request_id: Option<RequestId>,
}

/// The id of a request, as it stands in its response.
#[derive(Debug, Clone)]
pub struct RequestId(pub Arc<str>);

/// `None`: the present task works for no span.
pub fn current_ids() -> Option<Ids> {
    Context::map_current(|current| {
        let span = current.span();
        let context = span.span_context();
        context.is_valid().then(|| Ids {
            trace_id: context.trace_id(),
            span_id: context.span_id(),
            request_id: current.get::<RequestId>().cloned(),
        })
    })
}

impl<'a> NewSpan<'a> {
    pub fn child_of(self, parent: impl Into<Option<&'a TraceContext>>) -> Self {
        Self {
            parent: parent.into(),
            ..self
        }
    }

    /// Work that serves many callers is part of nobody's trace; links lead to theirs, and it is recorded if one of them is.
    pub fn linked_to<'l>(mut self, contexts: impl IntoIterator<Item = &'l TraceContext>) -> Self {
        if TRACER.get().is_some() {
            let links = contexts.into_iter().take(MAX_LINKS);
            self.links
                .extend(links.map(|one| Link::with_context(span_context(one))));
        }
        self
    }

    /// It began earlier than now.
    pub fn since(mut self, began: Instant) -> Self {
        let now = opentelemetry::time::now();
        let began = now.checked_sub(began.elapsed()).unwrap_or(now);
        self.builder = self.builder.with_start_time(began);
        self
    }

    pub fn start(self) -> Span {
        // At a public edge a caller's flag may not count: the sampler knows.
        let is_edge = self.builder.span_kind == Some(SpanKind::Server);
        let is_sampled = is_edge || self.parent.is_none_or(TraceContext::is_sampled);
        let Some(tracer) = TRACER.get().filter(|_| is_sampled) else {
            return Span::unrecorded(self.parent.cloned().unwrap_or_else(TraceContext::new_root));
        };
        let parent = self.parent.map_or_else(Context::new, remote);
        let builder = self.builder.with_links(self.links);
        let span = Span::recorded(builder.start_with_context(tracer, &parent));
        match self.parent.filter(|_| !span.is_recorded()) {
            // An id that nobody recorded would be nobody's parent.
            Some(parent) => Span::unrecorded(parent.unsampled()),
            None => span,
        }
    }
}

impl Span {
    fn recorded(span: opentelemetry_sdk::trace::Span) -> Self {
        let cx = Context::new().with_span(span);
        // After the end of recording the SDK makes spans without ids.
        let Some(context) = trace_context(cx.span().span_context()) else {
            return Self::unrecorded(TraceContext::new_root());
        };
        Self {
            recorded: context.is_sampled().then_some(cx),
            context,
        }
    }

    fn unrecorded(context: TraceContext) -> Self {
        Self {
            context,
            recorded: None,
        }
    }

    /// What is stored or sent, as the parent of what follows.
    pub fn context(&self) -> &TraceContext {
        &self.context
    }

    pub fn is_recorded(&self) -> bool {
        self.recorded.is_some()
    }

    /// `attributes` runs only if they are recorded.
    pub fn set<I: IntoIterator<Item = KeyValue>>(&self, attributes: impl FnOnce() -> I) {
        if let Some(recorded) = &self.recorded {
            recorded.span().set_attributes(attributes());
        }
    }

    pub fn rename(&self, name: impl Into<Cow<'static, str>>) {
        if let Some(recorded) = &self.recorded {
            recorded.span().update_name(name);
        }
    }

    pub fn link_to(&self, context: &TraceContext) {
        if let Some(recorded) = &self.recorded {
            recorded.span().add_link(span_context(context), Vec::new());
        }
    }

    /// It failed; `error_type` is a code with few values.
    pub fn fail(&self, error_type: impl Into<Cow<'static, str>>) {
        if let Some(recorded) = &self.recorded {
            let span = recorded.span();
            span.set_attribute(KeyValue::new(names::ERROR_TYPE, error_type.into()));
            span.set_status(Status::error(""));
        }
    }

    /// Keep it beside the work: see [`CancelOnDrop`].
    #[must_use]
    pub fn cancel_on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(self.clone())
    }

    /// It did not take place: nobody gets to see it.
    pub fn forget(&self) {
        self.rename("");
    }

    /// Runs a future for this span: log lines carry its ids, statements and calls are its children.
    pub fn scope<F>(&self, future: F) -> WithContext<F> {
        future.with_context(self.otel())
    }

    /// The same for the span of a request.
    pub fn scope_of_request<F>(&self, request_id: &str, future: F) -> WithContext<F> {
        let request_id = RequestId(request_id.into());
        future.with_context(self.otel().with_value(request_id))
    }

    fn otel(&self) -> Context {
        match &self.recorded {
            Some(recorded) => recorded.clone(),
            None => remote(&self.context),
        }
    }

    /// Now, although clones of it may be left.
    pub fn end(&self) {
        if let Some(recorded) = &self.recorded {
            recorded.span().end();
        }
    }
}

/// Work under way. A future whose client has gone or whose deadline has passed is dropped. Its span must not look as if the
/// work had succeeded, so it ends here as cancelled unless it has ended before.
#[derive(Debug)]
pub struct CancelOnDrop(Span);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.fail(names::CANCELLED);
        self.0.end();
    }
}

fn remote(context: &TraceContext) -> Context {
    Context::new().with_remote_span_context(span_context(context))
}

fn span_context(context: &TraceContext) -> SpanContext {
    let state = context.tracestate().and_then(|text| text.parse().ok());
    SpanContext::new(
        TraceId::from_hex(context.trace_id()).expect("32 hex digits"),
        SpanId::from_hex(context.span_id()).expect("16 hex digits"),
        TraceFlags::new(context.flags()),
        true,
        state.unwrap_or(TraceState::NONE),
    )
}

fn trace_context(context: &SpanContext) -> Option<TraceContext> {
    let trace_id = u128::from_be_bytes(context.trace_id().to_bytes());
    let span_id = u64::from_be_bytes(context.span_id().to_bytes());
    context.is_valid().then(|| {
        TraceContext::new(trace_id, span_id, context.trace_flags().to_u8())
            .with_tracestate(&context.trace_state().header())
    })
}
