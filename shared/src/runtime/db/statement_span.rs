//! The span of one unit of work.

use std::error::Error;

use super::mysql_number;
use crate::runtime::trace::{self, CancelOnDrop, KeyValue, Span, SpanKind, names};

/// A child of the span that the work is done for. Work of no span has none: a loop that asks MySQL many times a second would
/// fill every trace store.
#[derive(Debug)]
pub(super) struct StatementSpan(Option<(Span, CancelOnDrop)>);

impl StatementSpan {
    pub(super) fn begin(name: &'static str) -> Self {
        let Some(span) = trace::child(SpanKind::Client, name) else {
            return Self(None);
        };
        span.set(|| {
            let size = trace::operations_of_statement();
            let size = size.map(|size| KeyValue::new(names::DB_OPERATION_BATCH_SIZE, size));
            [
                KeyValue::new(names::DB_SYSTEM_NAME, "mysql"),
                KeyValue::new(names::DB_OPERATION_NAME, name),
            ]
            .into_iter()
            .chain(size)
        });
        let until_end = span.cancel_on_drop();
        Self(Some((span, until_end)))
    }

    /// `outcome`: as the metric calls it.
    pub(super) fn end(self, outcome: &'static str, error: Option<&(dyn Error + 'static)>) {
        let Some((span, _)) = &self.0 else { return };
        if let Some(number) = error.and_then(mysql_number) {
            let code = number.to_string();
            span.set(|| [KeyValue::new(names::DB_RESPONSE_STATUS_CODE, code)]);
        }
        // A refusal of our own is no failure of the database.
        if !["ok", "refused"].contains(&outcome) {
            span.fail(outcome);
        }
        span.end();
    }
}
