//! The spans of a test process, kept in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use opentelemetry::trace::Status;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

use crate::runtime::trace::record_to;

/// Everything that has ended since [`record`].
#[derive(Debug, Clone, Default)]
pub struct Recorded(Arc<Mutex<Vec<EndedSpan>>>);

/// Ids are lower-case hex digits.
#[derive(Debug, Clone)]
pub struct EndedSpan {
    pub name: String,
    pub trace_id: String,
    pub span_id: String,
    /// `None`: it begins its trace.
    pub parent: Option<String>,
    pub failed: bool,
    /// Each value as text.
    pub attributes: HashMap<String, String>,
}

/// Records the spans of this process from the first call on, of every test.
pub fn record() -> &'static Recorded {
    static RECORDED: OnceLock<Recorded> = OnceLock::new();
    RECORDED.get_or_init(|| {
        let recorded = Recorded::default();
        record_to(recorded.clone());
        recorded
    })
}

impl Recorded {
    /// A span arrives some milliseconds after its end.
    pub fn spans(&self) -> Vec<EndedSpan> {
        let spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        spans.clone()
    }

    /// The spans of this name with this attribute.
    pub fn with(&self, name: &str, attribute: &str, value: &str) -> Vec<EndedSpan> {
        let mut spans = self.spans();
        let has = |span: &EndedSpan| span.attributes.get(attribute).is_some_and(|of| of == value);
        spans.retain(|span| span.name == name && has(span));
        spans
    }
}

impl SpanExporter for Recorded {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let mut spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        spans.extend(batch.into_iter().map(EndedSpan::of));
        Ok(())
    }
}

impl EndedSpan {
    fn of(span: SpanData) -> Self {
        let attributes = span.attributes.iter();
        let text = |of: &opentelemetry::KeyValue| (of.key.to_string(), of.value.to_string());
        let has_parent = span.parent_span_id != opentelemetry::trace::SpanId::INVALID;
        Self {
            name: span.name.to_string(),
            trace_id: span.span_context.trace_id().to_string(),
            span_id: span.span_context.span_id().to_string(),
            parent: has_parent.then(|| span.parent_span_id.to_string()),
            failed: matches!(span.status, Status::Error { .. }),
            attributes: attributes.map(text).collect(),
        }
    }
}
