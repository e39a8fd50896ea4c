//! An OpenTelemetry collector for the demo and for tests: it takes traces by OTLP over HTTP, keeps every span, and answers
//! `GET /api/v3/traces/{id}` as Jaeger's query API does.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span as ProtoSpan};
use otlp_prost::Message;
use serde_json::{Value as Json, json};
use shared::runtime::http_server::{self, ConnectionMetrics, Limits};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::secrets::{self, Audience};

const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
const LIMITS: Limits = Limits {
    max_connections: 64,
    header_timeout: Duration::from_secs(60),
    write_timeout: Duration::from_secs(60),
    drain: Duration::from_secs(1),
};

/// See the module. Dropping it closes its port.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    _stop: DropGuard,
}

/// One span as it arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub service: String,
    /// Lower-case hex digits.
    pub trace_id: String,
    pub span_id: String,
    /// `None`: the span begins its trace.
    pub parent: Option<String>,
    pub name: String,
    pub kind: SpanKind,
    /// Nanoseconds since 1970.
    pub began: u64,
    pub ended: u64,
    pub failed: bool,
    /// Each value as text.
    pub attributes: HashMap<String, String>,
    /// Trace and span id.
    pub links: Vec<(String, String)>,
}

impl Collector {
    /// Listens on a free port of this machine.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start() -> anyhow::Result<Self> {
        Self::listen("127.0.0.1:0".parse()?).await
    }

    /// # Errors
    /// The address is taken.
    pub async fn listen(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let spans = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&spans);
        let service = service_fn(move |request: Request<Incoming>| {
            let kept = Arc::clone(&kept);
            async move { Ok::<_, Infallible>(respond(request, &kept).await) }
        });
        let stop = CancellationToken::new();
        let metrics = ConnectionMetrics::default();
        tokio::spawn(http_server::serve(
            listener,
            service,
            LIMITS,
            metrics,
            stop.clone(),
        ));
        Ok(Self {
            address,
            spans,
            _stop: stop.drop_guard(),
        })
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything that has arrived so far.
    ///
    /// # Panics
    /// A span holds a secret (P13).
    pub fn spans(&self) -> Vec<Span> {
        let spans = lock(&self.spans).clone();
        let text = format!("{spans:?}");
        secrets::assert_none_in("a span", &text, Audience::Anyone);
        spans
    }

    /// The spans of one trace, in the order in which they began.
    pub fn trace(&self, trace_id: &str) -> Vec<Span> {
        let mut spans = self.spans();
        spans.retain(|span| span.trace_id == trace_id);
        spans.sort_by_key(|span| span.began);
        spans
    }
}

async fn respond(request: Request<Incoming>, kept: &Mutex<Vec<Span>>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let wanted = path.strip_prefix("/api/v3/traces/");
    let (status, body) = match (request.method(), wanted) {
        (&Method::POST, None) if path == "/v1/traces" => (take(request, kept).await, String::new()),
        (&Method::GET, Some(trace_id)) => give(trace_id, kept),
        _ => (StatusCode::BAD_REQUEST, String::new()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}

/// One `POST /v1/traces`.
async fn take(request: Request<Incoming>, kept: &Mutex<Vec<Span>>) -> StatusCode {
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES);
    let body = body.collect().await.map(Collected::to_bytes);
    match body.ok().map(ExportTraceServiceRequest::decode) {
        Some(Ok(export)) => {
            lock(kept).extend(export.resource_spans.into_iter().flat_map(read));
            StatusCode::OK
        }
        _ => StatusCode::BAD_REQUEST,
    }
}

/// The spans of one trace as OTLP in JSON.
fn give(trace_id: &str, kept: &Mutex<Vec<Span>>) -> (StatusCode, String) {
    let spans = lock(kept);
    let found = spans.iter().filter(|span| span.trace_id == trace_id);
    let resources: Vec<Json> = found.map(Span::in_a_resource).collect();
    if resources.is_empty() {
        let error = json!({"httpCode": 404, "message": "No traces found"});
        return (StatusCode::NOT_FOUND, json!({"error": error}).to_string());
    }
    let traces = json!({"result": {"resourceSpans": resources}});
    (StatusCode::OK, traces.to_string())
}

fn lock(spans: &Mutex<Vec<Span>>) -> std::sync::MutexGuard<'_, Vec<Span>> {
    spans.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(of: ResourceSpans) -> Vec<Span> {
    let resource = of.resource.unwrap_or_default();
    let service = attributes(resource.attributes)
        .remove("service.name")
        .unwrap_or_default();
    let spans = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
    spans.map(|span| decode(&service, span)).collect()
}

fn decode(service: &str, span: ProtoSpan) -> Span {
    let link = |link: &Link| (hex(&link.trace_id), hex(&link.span_id));
    Span {
        service: service.to_owned(),
        trace_id: hex(&span.trace_id),
        span_id: hex(&span.span_id),
        parent: (!span.parent_span_id.is_empty()).then(|| hex(&span.parent_span_id)),
        kind: span.kind(),
        failed: span
            .status
            .as_ref()
            .is_some_and(|status| status.code() == SpanStatus::Error),
        links: span.links.iter().map(link).collect(),
        name: span.name,
        began: span.start_time_unix_nano,
        ended: span.end_time_unix_nano,
        attributes: attributes(span.attributes),
    }
}

fn attributes(pairs: Vec<KeyValue>) -> HashMap<String, String> {
    let pairs = pairs.into_iter();
    pairs
        .map(|pair| (pair.key, pair.value.map(text).unwrap_or_default()))
        .collect()
}

fn text(value: AnyValue) -> String {
    match value.value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(yes)) => yes.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

impl Span {
    fn in_a_resource(&self) -> Json {
        let attribute =
            |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
        let attributes = self.attributes.iter();
        let links = self.links.iter();
        let span = json!({
            "traceId": self.trace_id,
            "spanId": self.span_id,
            "parentSpanId": self.parent.as_deref().unwrap_or_default(),
            "name": self.name,
            "kind": i32::from(self.kind),
            "startTimeUnixNano": self.began.to_string(),
            "endTimeUnixNano": self.ended.to_string(),
            "attributes": attributes.map(|(key, value)| attribute(key, value)).collect::<Vec<_>>(),
            "links": links.map(|(trace, span)| json!({"traceId": trace, "spanId": span})).collect::<Vec<_>>(),
            "status": {"code": if self.failed { i32::from(SpanStatus::Error) } else { 0 }},
        });
        let service = attribute("service.name", &self.service);
        json!({"resource": {"attributes": [service]}, "scopeSpans": [{"spans": [span]}]})
    }

    /// # Errors
    /// It has no such attribute.
    pub fn attribute(&self, name: &str) -> anyhow::Result<&str> {
        let value = self.attributes.get(name).map(String::as_str);
        value.with_context(|| format!("{} has no {name}: {:?}", self.name, self.attributes))
    }
}
