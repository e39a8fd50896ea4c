//! What the rows know of a return's way: its events, what still waits in the outbox, its attempts, and what operators did.
//! They become spans, so that they are shown as the spans of a backend are. A row has the moment of a change, seldom an
//! end: the relay deletes what it has sent, and an attempt keeps the time of its first call only.

use std::collections::BTreeMap;

use shared::domain::refund::{Attempt, AttemptState};
use shared::domain::status::{Action, FILED};
use time::OffsetDateTime;

use super::span::{End, Span};
use crate::store::trace::{OperatorAction, TracedEvent, Unsent};
use crate::text::or_dash;

/// What no row has, for the end of the report.
pub(super) const NOT_KNOWN: &str = "\
Not in the rows: when the relay sent an event and Kafka took it, the provider's calls after the first, and how long each \
call took.";

/// The rows of one return, each list in its order.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) events: Vec<TracedEvent>,
    pub(super) unsent: Vec<Unsent>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) actions: Vec<OperatorAction>,
}

/// The events of one trace, by their places in [`Rows::events`], which ascend.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) trace_id: Option<String>,
    pub(super) events: Vec<usize>,
}

impl Rows {
    /// The traces in the order in which they began.
    pub(super) fn parts(&self) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for (place, event) in self.events.iter().enumerate() {
            match parts
                .iter_mut()
                .find(|part| part.trace_id == event.trace_id)
            {
                Some(part) => part.events.push(place),
                None => parts.push(Part {
                    trace_id: event.trace_id.clone(),
                    events: vec![place],
                }),
            }
        }
        parts
    }

    /// Whether spans of this trace were recorded; an event from before that was stored says nothing.
    pub(super) fn is_recorded(&self, part: &Part) -> bool {
        let flags = part
            .events
            .iter()
            .map(|place| self.events[*place].trace_flags);
        part.trace_id.is_some() && flags.into_iter().any(|flags| flags != Some(0))
    }

    /// What the rows say about one trace.
    pub(super) fn spans(&self, part: &Part) -> Vec<Span> {
        let mut spans = Vec::new();
        for place in &part.events {
            let event = &self.events[*place];
            spans.push(of_event(event));
            spans.extend(self.delivery(part, event));
        }
        for (place, attempt) in self.begun_attempts() {
            if part.events.contains(&place) {
                spans.extend(self.of_attempt(place, attempt));
            }
        }
        let own = |action: &&OperatorAction| part.events.contains(&self.nearest(action.created_at));
        let actions = self.actions.iter().filter(own).enumerate();
        spans.extend(actions.map(|(place, action)| of_action(place, action)));
        spans
    }

    /// The way of an event to Kafka, as far as it is known: what was sent and deleted has left no time behind, except that
    /// of the claim that it led to.
    fn delivery(&self, part: &Part, event: &TracedEvent) -> Vec<Span> {
        let began = nanos(event.created_at);
        let under = |name: String, began: u64, end: End| Span {
            span_id: format!("delivery of event {}: {name}", event.seq),
            parent: Some(event_id(event.seq)),
            name,
            began,
            end,
            ..Span::default()
        };
        let unsent = self.unsent.iter().find(|unsent| unsent.seq == event.seq);
        match unsent {
            Some(unsent) => match unsent.parked_at.map(nanos) {
                None => vec![under("waits in the outbox".to_owned(), began, End::Open)],
                Some(parked) => {
                    let until = End::At { nanos: parked };
                    let mut waits = under("parked".to_owned(), parked, End::Open);
                    waits.failed = true;
                    waits.notes = vec![or_dash(unsent.first_error.as_ref())];
                    vec![
                        under("waited in the outbox".to_owned(), began, until),
                        waits,
                    ]
                }
            },
            None if event.event_type == FILED => {
                let claimed = part.events.iter().map(|place| &self.events[*place]);
                let claimed = claimed.into_iter().find(|one| is(one, Action::Claim));
                let name = "outbox, Kafka, claim".to_owned();
                let until = |claim: &TracedEvent| End::At {
                    nanos: nanos(claim.created_at),
                };
                claimed.map_or_else(Vec::new, |claim| vec![under(name, began, until(claim))])
            }
            None => Vec::new(),
        }
    }

    /// Each attempt with the place of the event that began it: the claim, or a retry.
    fn begun_attempts(&self) -> impl Iterator<Item = (usize, &Attempt)> {
        let begins = |event: &TracedEvent| is(event, Action::Claim) || is(event, Action::Retry);
        let places = (0..self.events.len()).filter(move |place| begins(&self.events[*place]));
        places.zip(&self.attempts)
    }

    /// From the event at `place` to the first one that settled or parked it.
    fn of_attempt(&self, place: usize, attempt: &Attempt) -> Vec<Span> {
        const ENDS: [Action; 6] = [
            Action::Confirm,
            Action::Decline,
            Action::Park,
            Action::MarkPaid,
            Action::MarkNotPaid,
            Action::LateSuccess,
        ];
        let number = attempt.id.number;
        let later = self.events[place + 1..].iter();
        let mut own = later.take_while(|event| !is(event, Action::Retry));
        let ended = own.find(|event| ENDS.iter().any(|end| is(event, *end)));
        let mut span = Span {
            span_id: format!("attempt {number}"),
            name: format!("attempt {number}: {}", attempt.state.as_str()),
            service: or_dash(attempt.gateway.as_ref()),
            began: nanos(self.events[place].created_at),
            end: match ended {
                Some(event) => End::At {
                    nanos: nanos(event.created_at),
                },
                None if attempt.state.is_open() => End::Open,
                None => End::None,
            },
            failed: attempt.state == AttemptState::Declined,
            ..Span::default()
        };
        span.notes.extend(attempt.last_error.clone());
        let call = attempt.first_sent_at.map(|sent| Span {
            span_id: format!("first call of attempt {number}"),
            parent: Some(span.span_id.clone()),
            name: "first call".to_owned(),
            service: span.service.clone(),
            began: nanos(sent),
            ..Span::default()
        });
        [Some(span), call].into_iter().flatten().collect()
    }

    /// The place of the event that is nearest to this moment: an action is recorded with the event that it wrote.
    fn nearest(&self, at: OffsetDateTime) -> usize {
        let distance = |event: &TracedEvent| (event.created_at - at).abs();
        let events = self.events.iter().enumerate();
        let nearest = events.min_by_key(|(_, event)| distance(event));
        nearest.map_or(0, |(place, _)| place)
    }

    /// How a trace began, after which event of which trace: `trace 1, seq 4 refund.failed`.
    pub(super) fn follows(&self, part: &Part, parts: &[Part]) -> Option<String> {
        let first = *part.events.first()?;
        let before = first.checked_sub(1)?;
        let number: BTreeMap<usize, usize> = parts
            .iter()
            .enumerate()
            .flat_map(|(number, part)| part.events.iter().map(move |place| (*place, number + 1)))
            .collect();
        let (event, earlier) = (&self.events[first], &self.events[before]);
        Some(format!(
            "{} (seq {}) follows {} (seq {}) of trace {}",
            event.event_type, event.seq, earlier.event_type, earlier.seq, number[&before]
        ))
    }
}

fn is(event: &TracedEvent, action: Action) -> bool {
    event.event_type == action.event_type()
}

fn event_id(seq: i32) -> String {
    format!("event {seq}")
}

fn of_event(event: &TracedEvent) -> Span {
    Span {
        span_id: event_id(event.seq),
        name: event.event_type.clone(),
        service: format!("{}:{}", event.actor_type, event.actor_id),
        began: nanos(event.created_at),
        ..Span::default()
    }
}

fn of_action(place: usize, action: &OperatorAction) -> Span {
    Span {
        span_id: format!("operator action {place}"),
        name: format!("returnsctl: {}", action.verb),
        service: format!("{}:{}", action.actor_type, action.actor_id),
        began: nanos(action.created_at),
        ..Span::default()
    }
}

fn nanos(at: OffsetDateTime) -> u64 {
    u64::try_from(at.unix_timestamp_nanos()).unwrap_or_default()
}
