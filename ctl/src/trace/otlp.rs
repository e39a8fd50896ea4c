//! OTLP in JSON, as Jaeger's query API gives it: hexadecimal ids, and numbers of 64 bits as text.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use shared::runtime::trace::names;

use super::span::{End, Kind, Link, Span};

/// The attributes that are shown, and what stands before their values.
const NOTES: [(&str, &str); 5] = [
    (names::REFUND_ATTEMPT, "attempt "),
    (names::HTTP_RESPONSE_STATUS_CODE, ""),
    (names::REFUND_RESULT, ""),
    (names::REFUND_OUTCOME, ""),
    (names::ERROR_TYPE, ""),
];
/// The code of a failure in a span's status.
const ERROR: u8 = 2;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    result: Traces,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Traces {
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct ResourceSpans {
    resource: Resource,
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resource {
    attributes: Vec<Attribute>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ScopeSpans {
    spans: Vec<OtlpSpan>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OtlpSpan {
    trace_id: String,
    span_id: String,
    #[serde(default)]
    parent_span_id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    kind: u8,
    #[serde(deserialize_with = "nanos")]
    start_time_unix_nano: u64,
    #[serde(deserialize_with = "nanos")]
    end_time_unix_nano: u64,
    #[serde(default)]
    attributes: Vec<Attribute>,
    #[serde(default)]
    links: Vec<OtlpLink>,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OtlpLink {
    trace_id: String,
    span_id: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u8,
}

#[derive(Deserialize)]
struct Attribute {
    key: String,
    /// `{"stringValue": "…"}`
    #[serde(default)]
    value: Value,
}

/// The spans of this trace in one or several JSON documents: a gateway of gRPC may send an answer in parts.
pub(super) fn spans(trace_id: &str, json: &[u8]) -> serde_json::Result<Vec<Span>> {
    let mut spans = Vec::new();
    for part in serde_json::Deserializer::from_slice(json).into_iter::<Answer>() {
        for of in part?.result.resource_spans {
            let service = attribute(&of.resource.attributes, "service.name");
            let service = service.unwrap_or_default();
            let all = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let wanted = all.filter(|span| span.trace_id == trace_id);
            spans.extend(wanted.map(|span| read(&service, span)));
        }
    }
    Ok(spans)
}

fn read(service: &str, span: OtlpSpan) -> Span {
    let OtlpSpan {
        trace_id,
        attributes,
        ..
    } = span;
    let is_parent =
        |link: &OtlpLink| link.trace_id == trace_id && link.span_id == span.parent_span_id;
    let links = span.links.iter().filter(|link| !is_parent(link));
    let links = links.map(|link| Link {
        trace_id: link.trace_id.clone(),
        span_id: link.span_id.clone(),
    });
    let notes = NOTES.iter().filter_map(|(name, before)| {
        let value = attribute(&attributes, name)?;
        Some(format!("{before}{value}"))
    });
    let is_first_attempt = |note: &String| note == "attempt 1";
    let mut notes: Vec<String> = notes.filter(|note| !is_first_attempt(note)).collect();
    // The status of a failed request may be its type of error too.
    notes.dedup();
    Span {
        links: links.collect(),
        parent: (!span.parent_span_id.is_empty()).then_some(span.parent_span_id),
        span_id: span.span_id,
        name: span.name,
        kind: match span.kind {
            2 => Kind::Server,
            3 => Kind::Client,
            4 => Kind::Producer,
            5 => Kind::Consumer,
            _ => Kind::Internal,
        },
        service: service.to_owned(),
        began: span.start_time_unix_nano,
        end: End::At {
            nanos: span.end_time_unix_nano,
        },
        failed: span.status.code == ERROR,
        notes,
    }
}

/// An attribute as text; its value is the only field of an object that is named after its type.
fn attribute(attributes: &[Attribute], key: &str) -> Option<String> {
    let found = attributes.iter().find(|one| one.key == key)?;
    let value = found.value.as_object()?.values().next()?;
    Some(match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

/// A number, or its digits as text.
fn nanos<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let value = Value::deserialize(from)?;
    let nanos = match &value {
        Value::String(digits) => digits.parse().ok(),
        other => other.as_u64(),
    };
    nanos.ok_or_else(|| serde::de::Error::custom(format!("{value} is no time in nanoseconds")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn answer(span: &Value) -> Vec<u8> {
        let service = json!([{"key": "service.name", "value": {"stringValue": "returns-api"}}]);
        let spans =
            json!([{"resource": {"attributes": service}, "scopeSpans": [{"spans": [span]}]}]);
        json!({"result": {"resourceSpans": spans}})
            .to_string()
            .into()
    }

    fn failed_call() -> Value {
        json!({
            "traceId": TRACE, "spanId": "00f067aa0ba902b7", "parentSpanId": "00f067aa0ba902b6",
            "name": "POST", "kind": 3,
            "startTimeUnixNano": "1764547200000000001", "endTimeUnixNano": 1_764_547_200_000_000_002_u64,
            "attributes": [
                {"key": "http.response.status_code", "value": {"intValue": "503"}},
                {"key": "error.type", "value": {"stringValue": "503"}},
                {"key": "refund.attempt", "value": {"intValue": "2"}},
                {"key": "nothing", "value": {}}
            ],
            "links": [
                {"traceId": TRACE, "spanId": "00f067aa0ba902b6"},
                {"traceId": "f".repeat(32), "spanId": "00f067aa0ba902b6"}
            ],
            "status": {"code": 2}
        })
    }

    #[test]
    fn a_span_is_read_with_all_that_is_shown() {
        let body = answer(&failed_call());
        let twice = [body.clone(), body.clone()].concat();
        assert_eq!(spans(TRACE, &twice).expect("two parts").len(), 2);
        assert_eq!(spans(&"0".repeat(32), &body).expect("readable"), []);
        let read = spans(TRACE, &body).expect("readable").remove(0);
        let expected = Span {
            span_id: "00f067aa0ba902b7".to_owned(),
            parent: Some("00f067aa0ba902b6".to_owned()),
            name: "POST".to_owned(),
            kind: Kind::Client,
            service: "returns-api".to_owned(),
            began: 1_764_547_200_000_000_001,
            end: End::At {
                nanos: 1_764_547_200_000_000_002,
            },
            failed: true,
            notes: vec!["attempt 2".to_owned(), "503".to_owned()],
            links: vec![Link {
                trace_id: "f".repeat(32),
                span_id: "00f067aa0ba902b6".to_owned(),
            }],
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn an_answer_of_something_else_is_an_error() {
        for body in ["<html>", "{}", r#"{"result":{}}"#, r#"{"data":[]}"#, "[]"] {
            assert!(spans(TRACE, body.as_bytes()).is_err(), "{body}");
        }
        let mut span = failed_call();
        span["startTimeUnixNano"] = json!("soon");
        assert!(spans(TRACE, &answer(&span)).is_err());
    }
}
