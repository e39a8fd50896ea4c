//! The span of one call.

use reqwest::{Request, StatusCode};
use shared::runtime::trace::{self, CancelOnDrop, KeyValue, Span, SpanKind, names};

use crate::gateway::CallFailed;

/// Nothing, where nothing is recorded.
#[derive(Debug)]
pub(super) struct CallSpan(Option<(Span, CancelOnDrop)>);

impl CallSpan {
    /// `sent_before`: how often the same payment was. The provider does not get the trace context.
    pub(super) fn begin(request: &Request, sent_before: u32) -> Self {
        let method = request.method().as_str().to_owned();
        let Some(span) = trace::child(SpanKind::Client, method.clone()) else {
            return Self(None);
        };
        let url = request.url();
        span.set(|| {
            let server = url.host_str().unwrap_or_default().to_owned();
            let port = i64::from(url.port_or_known_default().unwrap_or_default());
            let resends = (sent_before > 0).then_some(i64::from(sent_before));
            let resends =
                resends.map(|count| KeyValue::new(names::HTTP_REQUEST_RESEND_COUNT, count));
            [
                KeyValue::new(names::HTTP_REQUEST_METHOD, method),
                KeyValue::new(names::URL_FULL, url.as_str().to_owned()),
                KeyValue::new(names::SERVER_ADDRESS, server),
                KeyValue::new(names::SERVER_PORT, port),
            ]
            .into_iter()
            .chain(resends)
        });
        let until_end = span.cancel_on_drop();
        Self(Some((span, until_end)))
    }

    pub(super) fn end(self, result: &Result<(StatusCode, Vec<u8>), CallFailed>) {
        let Some((span, _)) = &self.0 else { return };
        match result {
            Ok((status, _)) => {
                let code = i64::from(status.as_u16());
                span.set(|| [KeyValue::new(names::HTTP_RESPONSE_STATUS_CODE, code)]);
                if status.is_client_error() || status.is_server_error() {
                    span.fail(status.as_str().to_owned());
                }
            }
            Err(error) => span.fail(error.as_str()),
        }
        span.end();
    }
}
