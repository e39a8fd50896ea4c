//! Where the programs send their spans: to a collector inside the demo, which can be asked for them, or to the user's own.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::collector::{Collector, Span};
use e2e::program::{Env, run};
use e2e::until;
use reqwest::Url;

use crate::story::{FirstReturn, Story};

/// The last spans come after the last step of the story.
const DEADLINE: Duration = Duration::from_secs(30);
/// The events of a refund without faults, each of which is sent once.
const EVENTS: usize = 4;

pub(crate) enum Traces {
    Here(Collector),
    /// `pages` is the address of its Jaeger; it may have a password.
    Elsewhere {
        endpoint: String,
        pages: String,
    },
}

impl Traces {
    /// Inside the demo, unless there is an endpoint.
    pub(crate) async fn to(endpoint: Option<&str>, pages: &str) -> anyhow::Result<Self> {
        Ok(match endpoint.filter(|endpoint| !endpoint.is_empty()) {
            None => Self::Here(Collector::start().await?),
            Some(endpoint) => Self::Elsewhere {
                endpoint: endpoint.to_owned(),
                pages: pages.trim_end_matches('/').to_owned(),
            },
        })
    }

    /// The address that `returnsctl trace` asks, as it may be printed.
    pub(crate) fn printable_url(&self) -> anyhow::Result<String> {
        without_user(&self.query_url())
    }

    fn query_url(&self) -> String {
        match self {
            Self::Here(collector) => collector.endpoint(),
            Self::Elsewhere { pages, .. } => pages.clone(),
        }
    }

    pub(crate) fn variables(&self) -> Env {
        let endpoint = match self {
            Self::Here(collector) => collector.endpoint(),
            Self::Elsewhere { endpoint, .. } => endpoint.clone(),
        };
        let pairs = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
            ("TRACE_QUERY_URL", self.query_url()),
            // So that nobody waits for them.
            ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
        ];
        let pairs = pairs.into_iter();
        pairs
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// The trace of the first return, or where to look at it.
    pub(crate) async fn show(&self, story: &Story<'_>, first: &FirstReturn) -> anyhow::Result<()> {
        let trace_id = story.trace_id(first).await?;
        match self {
            Self::Here(collector) => {
                let is_whole = async || Ok(is_whole(&collector.trace(&trace_id)));
                let arrived = until("all spans have arrived", DEADLINE, is_whole).await;
                arrived.context("the programs did not send their spans")?;
                println!("\nWhat the first return waited for, from the spans of all programs:\n");
                let id = first.return_id().to_string();
                let tree = run("returnsctl", &["trace", &id], &story.stage().env).await?;
                print!("{tree}");
            }
            Self::Elsewhere { pages, .. } => {
                let pages = without_user(pages)?;
                println!("\nThe trace of the first return: {pages}/trace/{trace_id}");
            }
        }
        Ok(())
    }
}

/// The URL without user and password.
fn without_user(url: &str) -> anyhow::Result<String> {
    let mut url = Url::parse(url).context("TRACE_QUERY_URL is no URL")?;
    let removed = url.set_username("").and_then(|()| url.set_password(None));
    ensure!(removed.is_ok(), "TRACE_QUERY_URL names no server");
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Each program has sent its last span.
fn is_whole(spans: &[Span]) -> bool {
    let is_there = |id: &String| spans.iter().any(|span| span.span_id == *id);
    // A relay may send a record twice: then it is a second attempt after the same wait.
    let sent = spans.iter().filter(|span| span.name.starts_with("send "));
    let waits: HashSet<_> = sent.filter_map(|span| span.parent.as_ref()).collect();
    let parents = spans.iter().filter_map(|span| span.parent.as_ref());
    waits.len() == EVENTS && parents.into_iter().all(is_there)
}
