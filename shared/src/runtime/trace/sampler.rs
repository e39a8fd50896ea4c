//! Which traces are recorded.

use opentelemetry::trace::{Link, SpanKind, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{
    ParentBasedSampler, Sampler, SamplingDecision, SamplingResult, ShouldSample,
};

/// A trace of work for many callers is recorded if one of theirs is; every other new trace as `root` says.
#[derive(Debug, Clone)]
struct AnyLinkOr {
    root: Sampler,
}

impl ShouldSample for AnyLinkOr {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        if links.is_empty() {
            return self
                .root
                .should_sample(parent, trace_id, name, kind, attributes, links);
        }
        let is_sampled = links.iter().any(|link| link.span_context.is_sampled());
        SamplingResult {
            decision: if is_sampled {
                SamplingDecision::RecordAndSample
            } else {
                SamplingDecision::Drop
            },
            attributes: Vec::new(),
            trace_state: TraceState::default(),
        }
    }
}

/// The samplers that `OTEL_TRACES_SAMPLER` may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum SamplerName {
    AlwaysOn,
    AlwaysOff,
    Traceidratio,
    ParentbasedAlwaysOn,
    ParentbasedAlwaysOff,
    ParentbasedTraceidratio,
}

/// A sampler for traces that begin here. Those that come from another program keep its decision, unless the caller's
/// flag is not to be believed or the name says so.
pub(super) fn sampler(name: SamplerName, ratio: f64, trusts_callers: bool) -> ParentBasedSampler {
    use SamplerName as N;
    let root = match name {
        N::AlwaysOn | N::ParentbasedAlwaysOn => Sampler::AlwaysOn,
        N::AlwaysOff | N::ParentbasedAlwaysOff => Sampler::AlwaysOff,
        N::Traceidratio | N::ParentbasedTraceidratio => Sampler::TraceIdRatioBased(ratio),
    };
    let ignores_parents = matches!(name, N::AlwaysOn | N::AlwaysOff | N::Traceidratio);
    let sampler = Sampler::parent_based(AnyLinkOr { root: root.clone() });
    if ignores_parents || !trusts_callers {
        sampler.with_remote_parent_sampled(root)
    } else {
        sampler
    }
}
