//! Which traces are recorded.

use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};
use rand::RngExt;

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

/// Decides about each span; see [`Decider::decide`].
#[derive(Debug, Clone)]
pub(super) struct Decider {
    pub(super) name: SamplerName,
    /// Of the traces that begin here.
    pub(super) ratio: f64,
    /// Whether a caller's flag counts. Not at a public edge.
    pub(super) trusts_callers: bool,
}

/// What a span follows.
#[derive(Debug, Clone, Copy)]
enum Before {
    /// It begins a trace.
    Nothing,
    /// Work for many, or work that begins a trace because of an old one: whether one of theirs is recorded.
    Links {
        are_sampled: bool,
    },
    Parent {
        is_sampled: bool,
    },
}

impl Decider {
    /// A trace is decided about once, where it begins or at a public edge, and all that follows keeps that decision. At the
    /// edge it is random: a caller could choose the id that a ratio is computed from. Without `parentbased` the specification
    /// judges each span alone, but a span is never recorded whose trace is not.
    fn decide(&self, before: Before, is_server: bool, trace_id: TraceId) -> bool {
        use SamplerName as N;
        let root = match self.name {
            N::AlwaysOn | N::ParentbasedAlwaysOn => Sampler::AlwaysOn,
            N::AlwaysOff | N::ParentbasedAlwaysOff => Sampler::AlwaysOff,
            N::Traceidratio | N::ParentbasedTraceidratio => Sampler::TraceIdRatioBased(self.ratio),
        };
        let judge = |id| is_recorded(&root, id);
        let ignores_parents = matches!(self.name, N::AlwaysOn | N::AlwaysOff | N::Traceidratio);
        match before {
            Before::Nothing => judge(trace_id),
            Before::Parent { .. } if is_server && !self.trusts_callers => judge(random_id()),
            Before::Links { are_sampled: false } | Before::Parent { is_sampled: false } => false,
            // The edge has decided for all of them.
            Before::Parent { .. } if ignores_parents && self.trusts_callers => judge(trace_id),
            Before::Links { .. } | Before::Parent { .. } => self.name != N::AlwaysOff,
        }
    }
}

fn random_id() -> TraceId {
    TraceId::from(rand::rng().random::<u128>())
}

fn is_recorded(sampler: &Sampler, trace_id: TraceId) -> bool {
    let result = sampler.should_sample(None, trace_id, "", &SpanKind::Internal, &[], &[]);
    result.decision == SamplingDecision::RecordAndSample
}

impl ShouldSample for Decider {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        _: &str,
        kind: &SpanKind,
        _: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let parent = parent.map(|parent| parent.span().span_context().clone());
        let parent = parent.filter(|parent| parent.is_valid());
        let before = match &parent {
            Some(parent) => Before::Parent {
                is_sampled: parent.is_sampled(),
            },
            None if links.is_empty() => Before::Nothing,
            None => Before::Links {
                are_sampled: links.iter().any(|link| link.span_context.is_sampled()),
            },
        };
        SamplingResult {
            decision: if self.decide(before, *kind == SpanKind::Server, trace_id) {
                SamplingDecision::RecordAndSample
            } else {
                SamplingDecision::Drop
            },
            attributes: Vec::new(),
            trace_state: parent.map_or_else(TraceState::default, |of| of.trace_state().clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    /// The SDK's ratio records it at every ratio above 0.
    const LOWEST: TraceId = TraceId::from_bytes([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    const SAMPLED: Before = Before::Parent { is_sampled: true };
    const UNSAMPLED: Before = Before::Parent { is_sampled: false };

    fn decider(name: SamplerName, trusts_callers: bool) -> Decider {
        Decider {
            name,
            ratio: 0.5,
            trusts_callers,
        }
    }

    #[test]
    fn always_off_records_nothing() {
        let links = Before::Links { are_sampled: true };
        for trusts_callers in [true, false] {
            let off = decider(SamplerName::AlwaysOff, trusts_callers);
            for before in [Before::Nothing, links, SAMPLED, UNSAMPLED] {
                for is_server in [true, false] {
                    let decision = off.decide(before, is_server, LOWEST);
                    assert!(!decision, "{before:?} {is_server}");
                }
            }
        }
    }

    #[test]
    fn what_was_decided_elsewhere_is_kept() {
        let many = |are_sampled| Before::Links { are_sampled };
        for name in SamplerName::value_variants() {
            for trusts_callers in [true, false] {
                let decider = decider(*name, trusts_callers);
                assert!(!decider.decide(UNSAMPLED, false, LOWEST), "{name:?}");
                assert!(!decider.decide(many(false), false, LOWEST), "{name:?}");
                let is_off = *name == SamplerName::AlwaysOff;
                assert_eq!(decider.decide(SAMPLED, false, LOWEST), !is_off, "{name:?}");
                assert_eq!(decider.decide(many(true), false, LOWEST), !is_off);
            }
        }
    }

    /// With one id and either flag.
    #[test]
    fn a_caller_that_is_not_trusted_chooses_nothing() {
        for name in [
            SamplerName::Traceidratio,
            SamplerName::ParentbasedTraceidratio,
        ] {
            let edge = decider(name, false);
            for before in [SAMPLED, UNSAMPLED] {
                let recorded = (0..1_000).filter(|_| edge.decide(before, true, LOWEST));
                let recorded = recorded.count();
                assert!((350..650).contains(&recorded), "{recorded} of 1000");
            }
        }
        let on = decider(SamplerName::ParentbasedAlwaysOn, false);
        assert!(on.decide(UNSAMPLED, true, LOWEST));
        let off = decider(SamplerName::ParentbasedAlwaysOff, false);
        assert!(!off.decide(SAMPLED, true, LOWEST));
    }

    #[test]
    fn the_flag_of_a_trusted_caller_counts() {
        for name in [
            SamplerName::ParentbasedAlwaysOn,
            SamplerName::ParentbasedAlwaysOff,
            SamplerName::ParentbasedTraceidratio,
        ] {
            let trusting = decider(name, true);
            assert!(trusting.decide(SAMPLED, true, LOWEST), "{name:?}");
            assert!(!trusting.decide(UNSAMPLED, true, LOWEST), "{name:?}");
        }
    }
}
