//! docs/STATES.md and docs/EVENTS.md agree with the code.

use shared::domain::event::{Envelope, NewReturnEvent, StatusEvent, TopicArgs};
use shared::domain::ids::{EventId, OrderId, ReturnId};
use shared::domain::status::{Action, Status};
use strum::IntoEnumIterator;
use time::macros::datetime;
use uuid::uuid;

const STATES: &str = include_str!("../../../docs/STATES.md");
const EVENTS: &str = include_str!("../../../docs/EVENTS.md");

#[derive(clap::Parser)]
struct Defaults {
    #[command(flatten)]
    topics: TopicArgs,
}

/// `MarkNotPaid` in words: `mark not paid`.
fn words(action: Action) -> String {
    let mut words = String::new();
    for letter in format!("{action:?}").chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

#[test]
fn the_table_has_exactly_the_allowed_moves() {
    let mut moves: Vec<String> = Vec::new();
    for from in Status::iter() {
        for action in Action::iter() {
            if let Ok(to) = from.after(action) {
                moves.push(format!(
                    "| `{from}` | {} | `{to}` | `{}` |",
                    words(action),
                    action.event_type()
                ));
            }
        }
    }
    let mut documented: Vec<&str> = STATES
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    moves.sort_unstable();
    documented.sort_unstable();
    assert_eq!(documented, moves);
}

#[test]
fn the_open_states_are_listed() {
    let open: Vec<String> = Status::iter()
        .filter(|status| status.is_open())
        .map(|status| format!("`{status}`"))
        .collect();
    let (last, others) = open.split_last().expect("some are open");
    let sentence = format!("{} and {last} are open", others.join(", "));
    assert!(STATES.contains(&sentence), "{sentence}");
}

#[test]
fn the_table_of_topics_has_the_payloads_of_the_code() {
    let new = NewReturnEvent {
        return_id: ReturnId(456),
        order_id: OrderId(123),
    };
    let status = StatusEvent {
        return_id: ReturnId(456),
        order_id: OrderId(123),
        status: Status::Refunded,
        seq: 4,
    };
    let topics = <Defaults as clap::Parser>::parse_from(["defaults"]).topics;
    for (topic, value) in [
        (&topics.topic_returns, serde_json::to_string(&new)),
        (&topics.topic_status, serde_json::to_string(&status)),
    ] {
        let value = value.expect("plain data");
        let documented = EVENTS.lines().any(|line| {
            line.starts_with(&format!("| `{topic}` |")) && line.contains(&format!("`{value}`"))
        });
        assert!(documented, "{topic} {value}");
    }
}

#[test]
fn every_header_is_in_the_table_with_its_value() {
    let envelope = Envelope {
        event_id: EventId(uuid!("019ab000-0000-7000-8000-000000000001")),
        event_type: "return.initiated",
        return_id: ReturnId(456),
        seq: 1,
        created_at: datetime!(2026-11-23 02:15:00.123456 UTC),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        tracestate: None,
        epoch: 7,
    };
    for (name, value) in envelope.headers() {
        let row = format!("| `{name}` | `{value}` |");
        assert!(EVENTS.contains(&row), "{row}");
    }
}
