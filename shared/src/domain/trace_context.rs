//! W3C trace context: it comes with a request and is stored with each event.
//!
//! Read as the recommendation says (<https://www.w3.org/TR/trace-context/>): a later version is read as version 00, and
//! anything broken begins a new trace.

use rand::RngExt;
use sqlx::Row;
use sqlx::mysql::MySqlRow;

/// A trace, the span that is the parent of what comes next, and whether spans are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// Of version 00.
    traceparent: String,
    tracestate: Option<String>,
}

/// `00-trace_id-span_id-flags`.
const TRACEPARENT_LEN: usize = 55;
/// The flag of a trace whose spans are recorded.
const SAMPLED: u8 = 1;
/// The longest `tracestate` that is kept: the length that the recommendation asks to propagate at least.
const TRACESTATE_MAX: usize = 512;
/// A longer text is not read: somebody made it on purpose.
const TRACESTATE_READ_MAX: usize = 8 * 1024;
/// A member longer than this is the first to go.
const MEMBER_MAX: usize = 128;
/// The most members of a `tracestate`.
const MEMBERS_MAX: usize = 32;

impl TraceContext {
    /// A new trace of which no span is recorded.
    pub fn new_root() -> Self {
        Self::new(random_trace_id(), random_span_id(), 0)
    }

    /// # Panics
    /// One of the ids is zero, which no id is.
    pub fn new(trace_id: u128, span_id: u64, flags: u8) -> Self {
        assert!(trace_id != 0 && span_id != 0, "an id of zero");
        Self {
            traceparent: format!("00-{trace_id:032x}-{span_id:016x}-{flags:02x}"),
            tracestate: None,
        }
    }

    /// As it is stored beside an event. An event from before spans were stored has a trace of which none is recorded.
    /// `None` if it is broken.
    fn from_parts(trace_id: &str, span_id: Option<&str>, flags: Option<u8>) -> Option<Self> {
        let unknown = format!("{:016x}", random_span_id());
        let (span_id, flags) = (span_id.unwrap_or(&unknown), flags.unwrap_or(0));
        Self::read(&format!("00-{trace_id}-{span_id}-{flags:02x}"))
    }

    /// From the columns `trace_id`, `span_id` and `trace_flags` of an event. `None` if it has none, or a broken one.
    ///
    /// # Errors
    /// A column is missing or of another type.
    pub fn from_row(row: &MySqlRow) -> sqlx::Result<Option<Self>> {
        let trace_id: Option<&str> = row.try_get("trace_id")?;
        let (span_id, flags) = (row.try_get("span_id")?, row.try_get("trace_flags")?);
        Ok(trace_id.and_then(|trace_id| Self::from_parts(trace_id, span_id, flags)))
    }

    /// The context of the lines of two headers. `None` if there is not exactly one `traceparent`, or a broken one. The
    /// lines of `tracestate` are joined.
    pub fn from_headers<'a>(
        traceparent: impl IntoIterator<Item = &'a str>,
        tracestate: impl IntoIterator<Item = &'a str>,
    ) -> Option<Self> {
        let mut lines = traceparent.into_iter();
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return None;
        };
        Some(Self::read(line)?.with_tracestate(&join(tracestate)))
    }

    fn read(text: &str) -> Option<Self> {
        let known = text.get(..TRACEPARENT_LEN)?;
        let rest = &text[TRACEPARENT_LEN..];
        let parts: Vec<&str> = known.split('-').collect();
        let [version, trace_id, span_id, flags] = parts.as_slice() else {
            return None;
        };
        let lengths = [version, trace_id, span_id, flags].map(|part| part.len());
        let is_version = match *version {
            "00" => rest.is_empty(),
            "ff" => false,
            // Fields that a later version adds stand behind another dash.
            _ => rest.is_empty() || rest.starts_with('-'),
        };
        let is_valid = lengths == [2, 32, 16, 2]
            && is_version
            && parts.iter().all(|part| is_lower_hex(part))
            && !is_zero(trace_id)
            && !is_zero(span_id);
        // Version 00 knows the lowest flag only.
        let flags = u8::from_str_radix(flags, 16).ok()? & SAMPLED;
        is_valid.then(|| Self {
            traceparent: format!("00-{trace_id}-{span_id}-{flags:02x}"),
            tracestate: None,
        })
    }

    /// A state that is too long loses whole members: long ones first, then the last ones. An unreadable one is dropped.
    #[must_use]
    pub fn with_tracestate(self, text: &str) -> Self {
        let text = if text.len() > TRACESTATE_READ_MAX {
            ""
        } else {
            text
        };
        let members = text.split(',').map(str::trim);
        let mut members: Vec<&str> = members.filter(|member| !member.is_empty()).collect();
        let length = |members: &[&str]| members.iter().map(|one| one.len() + 1).sum::<usize>();
        if length(&members) > TRACESTATE_MAX + 1 {
            members.retain(|member| member.len() <= MEMBER_MAX);
        }
        let mut kept = 0;
        members.retain(|member| {
            kept += member.len() + 1;
            kept <= TRACESTATE_MAX + 1
        });
        let is_readable =
            members.len() <= MEMBERS_MAX && members.iter().all(|member| is_member(member));
        Self {
            tracestate: (is_readable && !members.is_empty()).then(|| members.join(",")),
            ..self
        }
    }

    /// `00-trace_id-span_id-flags`, 55 characters.
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

    /// 16 lower-case hex digits.
    pub fn span_id(&self) -> &str {
        &self.traceparent[36..52]
    }

    pub fn flags(&self) -> u8 {
        u8::from_str_radix(&self.traceparent[53..], 16).expect("two hex digits")
    }

    /// The same trace, of which no span is recorded.
    #[must_use]
    pub fn unsampled(&self) -> Self {
        let ids = &self.traceparent[..TRACEPARENT_LEN - 2];
        Self {
            traceparent: format!("{ids}00"),
            tracestate: self.tracestate.clone(),
        }
    }

    /// Whether its spans are recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags() & SAMPLED != 0
    }
}

/// All-zero ids are invalid; `| 1` prevents them.
fn random_trace_id() -> u128 {
    rand::rng().random::<u128>() | 1
}

fn random_span_id() -> u64 {
    rand::rng().random::<u64>() | 1
}

fn join<'a>(lines: impl IntoIterator<Item = &'a str>) -> String {
    lines.into_iter().collect::<Vec<_>>().join(",")
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_zero(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'0')
}

/// `key=value` in printable ASCII.
fn is_member(text: &str) -> bool {
    let is_printable = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    is_printable
        && text
            .split_once('=')
            .is_some_and(|(key, value)| !key.is_empty() && !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(text: &str) -> Option<TraceContext> {
        TraceContext::from_headers([text], [])
    }

    #[test]
    fn a_good_header_is_kept() {
        let context = TraceContext::from_headers([GOOD], ["a=1"]).expect("valid");
        assert_eq!(context.traceparent(), GOOD);
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id(), "00f067aa0ba902b7");
        assert_eq!(context.tracestate(), Some("a=1"));
        assert!(context.is_sampled());
        let unsampled = GOOD.replace("-01", "-00");
        assert!(!read(&unsampled).expect("valid").is_sampled());
    }

    #[test]
    fn its_stored_parts_make_the_same_context() {
        let context = read(GOOD).expect("valid");
        let trace_id = context.trace_id();
        let stored = TraceContext::from_parts(trace_id, Some(context.span_id()), Some(1));
        assert_eq!(stored.as_ref(), Some(&context));
        let old = TraceContext::from_parts(trace_id, None, None).expect("valid");
        assert_eq!((old.trace_id(), old.is_sampled()), (trace_id, false));
        assert_eq!(TraceContext::from_parts("none", None, None), None);
    }

    #[test]
    fn a_later_version_is_read_as_version_00() {
        let later = GOOD.replacen("00", "cc", 1);
        for text in [&later, &format!("{later}-what-the-future-will-be")] {
            assert_eq!(read(text).expect("valid").traceparent(), GOOD);
        }
        // Flags that version 00 does not know are not passed on.
        let flags = GOOD.replace("-01", "-ff");
        assert_eq!(read(&flags).expect("valid").traceparent(), GOOD);
    }

    #[test]
    fn a_broken_header_is_none() {
        let later = GOOD.replacen("00", "cc", 1);
        for bad in [
            "",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-é4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473600f067aa0ba902b7--01",
            &format!("{later}.what"),
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn two_parents_are_none() {
        assert_eq!(TraceContext::from_headers([GOOD, GOOD], []), None);
        assert_eq!(TraceContext::from_headers([], ["a=1"]), None);
    }

    fn state<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<String> {
        let context = TraceContext::from_headers([GOOD], lines).expect("valid");
        context.tracestate().map(str::to_owned)
    }

    #[test]
    fn the_lines_of_a_tracestate_are_joined() {
        assert_eq!(
            state(["a=1, b=2", "", "c=3"]).as_deref(),
            Some("a=1,b=2,c=3")
        );
        assert_eq!(state([""]), None);
        for bad in ["a", "a=", "=1", "a=é", "a=1\u{1}"] {
            assert_eq!(state([bad]), None, "{bad}");
        }
    }

    #[test]
    fn a_long_tracestate_loses_whole_members() {
        let long = format!("long={}", "x".repeat(MEMBER_MAX));
        let short = |key: char| format!("{key}={}", "y".repeat(98));
        let first: Vec<String> = ('a'..='e').map(short).collect();
        let kept = first.join(",");
        assert_eq!(kept.len(), 504);
        assert_eq!(
            state([long.as_str(), &kept]).as_deref(),
            Some(kept.as_str())
        );
        let last = short('f');
        assert_eq!(
            state([kept.as_str(), &last]).as_deref(),
            Some(kept.as_str())
        );
    }

    /// Any producer can write a megabyte of it.
    #[test]
    fn a_huge_tracestate_is_not_read() {
        let huge = "a,".repeat(500_000);
        assert_eq!(state([huge.as_str()]), None);
        let long = "a=1,".repeat(TRACESTATE_READ_MAX / 4);
        assert_eq!(state([long.as_str()]), None, "too many members");
    }

    #[test]
    fn a_new_trace_is_not_sampled() {
        let [one, two] = [TraceContext::new_root(), TraceContext::new_root()];
        assert_ne!(one.trace_id(), two.trace_id());
        assert_eq!(read(one.traceparent()), Some(one.clone()));
        assert!(!one.is_sampled());
    }
}
