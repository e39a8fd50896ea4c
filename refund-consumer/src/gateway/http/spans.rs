//! The span of one call.

use reqwest::{Request, StatusCode};
use shared::runtime::trace::{self, KeyValue, Span, SpanKind, names};

use crate::gateway::CallFailed;

/// `None`: nothing is recorded here. The provider does not get the trace context.
pub(super) fn call(request: &Request) -> Option<Span> {
    let method = request.method().as_str().to_owned();
    let span = trace::child(SpanKind::Client, method.clone())?;
    let url = request.url();
    span.set(|| {
        [
            KeyValue::new(names::HTTP_REQUEST_METHOD, method),
            KeyValue::new(names::URL_FULL, url.as_str().to_owned()),
            KeyValue::new(
                names::SERVER_ADDRESS,
                url.host_str().unwrap_or_default().to_owned(),
            ),
            KeyValue::new(
                names::SERVER_PORT,
                i64::from(url.port_or_known_default().unwrap_or_default()),
            ),
        ]
    });
    Some(span)
}

pub(super) fn answered(span: &Span, result: &Result<(StatusCode, Vec<u8>), CallFailed>) {
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
}
