//! The history of a return as operators see it: its events, without their payloads and hashes.

use serde::Serialize;
use shared::domain::ids::EventId;

use crate::layout::{Row, table};
use crate::store::returns::Event;
use crate::text::{rfc3339, to_second};

#[derive(Debug, Serialize)]
pub(crate) struct EventView {
    seq: i32,
    event_type: String,
    event_id: EventId,
    actor: String,
    at: String,
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        Self {
            seq: event.seq,
            event_type: event.event_type,
            event_id: event.event_id,
            actor: format!("{}:{}", event.actor_type, event.actor_id),
            at: rfc3339(event.created_at),
        }
    }
}

/// The events as a table.
pub(crate) fn events_text(events: &[EventView]) -> String {
    let row = |event: &EventView| {
        Row::from([
            event.seq.to_string(),
            event.event_type.clone(),
            event.actor.clone(),
            to_second(&event.at),
        ])
    };
    let rows: Vec<Row<4>> = events.iter().map(row).collect();
    table(["seq", "event", "by", "at"], &rows)
}
