//! W3C trace context: it comes with a request and is stored in the outbox row.
//!
//! A broken header starts a new trace (<https://www.w3.org/TR/trace-context/>, section 4.3).

use rand::RngExt;

/// A valid `traceparent` and the `tracestate` that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    traceparent: String,
    tracestate: Option<String>,
}

/// The longest `tracestate` that is kept: the length that vendors should at least propagate by the specification.
const TRACESTATE_MAX: usize = 512;

impl TraceContext {
    /// A new, sampled trace.
    pub fn new_root() -> Self {
        let mut rng = rand::rng();
        // All-zero ids are invalid; `| 1` prevents them.
        let trace: u128 = rng.random::<u128>() | 1;
        let span: u64 = rng.random::<u64>() | 1;
        Self {
            traceparent: format!("00-{trace:032x}-{span:016x}-01"),
            tracestate: None,
        }
    }

    /// The same trace with a new span id, for work that neither a request nor a message started. A new trace if the text is
    /// not a trace id.
    pub fn continuing(trace_id: &str) -> Self {
        let span: u64 = rand::rng().random::<u64>() | 1;
        Self::from_headers(Some(&format!("00-{trace_id}-{span:016x}-01")), None)
    }

    /// The context from the headers of a request, or a new trace if they are missing or broken.
    pub fn from_headers(traceparent: Option<&str>, tracestate: Option<&str>) -> Self {
        let Some(traceparent) = traceparent.filter(|text| is_traceparent(text)) else {
            return Self::new_root();
        };
        Self {
            traceparent: traceparent.to_owned(),
            tracestate: tracestate
                .filter(|text| text.len() <= TRACESTATE_MAX && is_printable(text))
                .map(str::to_owned),
        }
    }

    /// `version-trace_id-parent_id-flags`, 55 characters.
    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }

    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// 32 lower-case hex digits.
    pub fn trace_id(&self) -> &str {
        &self.traceparent[3..35]
    }
}

fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, span, flags] = parts.as_slice() else {
        return false;
    };
    let hex = |part: &str, len: usize| {
        part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |part: &str| part.bytes().all(|b| b == b'0');
    *version == "00"
        && hex(trace, 32)
        && hex(span, 16)
        && hex(flags, 2)
        && !zero(trace)
        && !zero(span)
}

fn is_printable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| (0x20..0x7f).contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_good_header_is_kept() {
        let context = TraceContext::from_headers(Some(GOOD), Some("a=1"));
        assert_eq!(context.traceparent(), GOOD);
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.tracestate(), Some("a=1"));
    }

    #[test]
    fn a_trace_is_continued_under_a_new_span() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let [one, two] = [
            TraceContext::continuing(trace),
            TraceContext::continuing(trace),
        ];
        assert_eq!((one.trace_id(), two.trace_id()), (trace, trace));
        assert_ne!(one.traceparent(), two.traceparent());
        assert!(is_traceparent(
            TraceContext::continuing("none").traceparent()
        ));
    }

    #[test]
    fn a_broken_header_starts_a_new_trace() {
        for bad in [
            "",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-é4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            let context = TraceContext::from_headers(Some(bad), Some("a=1"));
            assert_ne!(context.traceparent(), bad);
            assert!(is_traceparent(context.traceparent()));
            assert_eq!(context.tracestate(), None);
        }
    }
}
