//! What happened, and when: a span of a backend, or what a row says.

use serde::{Serialize, Serializer};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Span {
    pub(super) span_id: String,
    /// `None`: it begins its trace.
    pub(super) parent: Option<String>,
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The program, or who did it.
    pub(super) service: String,
    #[serde(rename = "start_time_unix_nano", serialize_with = "text")]
    pub(super) began: u64,
    #[serde(flatten)]
    pub(super) end: End,
    pub(super) failed: bool,
    /// The few attributes that people look for.
    pub(super) notes: Vec<String>,
    pub(super) links: Vec<Link>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    #[default]
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "end")]
pub(super) enum End {
    At {
        #[serde(rename = "end_time_unix_nano", serialize_with = "text")]
        nanos: u64,
    },
    /// A moment, or an end that no row has.
    #[default]
    None,
    /// It goes on.
    Open,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Link {
    pub(super) trace_id: String,
    pub(super) span_id: String,
}

impl Span {
    /// The last moment that is known of it.
    pub(super) fn until(&self) -> u64 {
        match self.end {
            End::At { nanos } => nanos.max(self.began),
            End::None | End::Open => self.began,
        }
    }
}

/// As text, as OTLP has it: a double holds no nanoseconds since 1970.
fn text<S: Serializer>(nanos: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(nanos)
}
