use std::time::{Duration, Instant};

use crossterm::event::{KeyCode, KeyEvent};
use shared::domain::event::TopicArgs;
use shared::domain::ids::Shard;

use super::*;
use crate::consumer_group::{GroupState, Member};
use crate::overview::{
    Alert, AlertState, Consumers, Outbox, Overview, Part, Program, Rates, Scrape, SeenError, Work,
};
use crate::store::findings::Findings;
use crate::store::queues::StateCount;
use crate::store::shards::{Measured, Relay, ShardCounts, ShardHead};

fn read<T>(value: T) -> Part<T> {
    Part {
        value: Some(value),
        trouble: None,
        read_at: Instant::now(),
    }
}

/// Shown as 17 min, also half a minute later.
fn long_ago() -> Instant {
    let then = Instant::now().checked_sub(Duration::from_secs(1_000));
    then.expect("the machine runs for longer")
}

fn states(states: &[(&str, i64, Option<f64>)]) -> Vec<StateCount> {
    let all = states.iter().map(|(name, count, oldest_secs)| StateCount {
        name: (*name).to_owned(),
        count: *count,
        oldest_secs: *oldest_secs,
    });
    all.collect()
}

fn shard(number: u8) -> ShardHead {
    let owner = if number < 8 { "relay-a" } else { "relay-b" };
    ShardHead {
        shard: Shard(number),
        owner: Some(owner.to_owned()),
        epoch: 3,
        lease_left_secs: Some(8.2),
        paused_secs: (number == 5).then_some(600.0),
        oldest_age_secs: (number != 9).then_some(f64::from(number) / 10.0),
        oldest_topic: (number != 9).then(|| "order.returns".to_owned()),
    }
}

fn outbox() -> Outbox {
    let seen = |id: &str| Relay {
        id: id.to_owned(),
        seen_secs: 0.4,
    };
    Outbox {
        shards: (0..16).map(shard).collect(),
        relays: vec![seen("relay-a"), seen("relay-b")],
        measured: Some(Measured {
            rows: 1_200,
            payload_bytes: 70_000,
            measured_secs: 4.0,
        }),
        parked_events: 3,
        parked_orders: 2,
    }
}

fn work() -> Work {
    Work {
        returns: states(&[
            ("initiated", 12, Some(0.8)),
            ("in_review", 1, Some(9_000.0)),
            ("approved", 0, None),
            ("refund_pending", 31, Some(2.5)),
            ("refund_failed", 2, Some(90_000.0)),
        ]),
        refunds: states(&[
            ("claimed", 20, Some(-3.0)),
            ("sent", 0, None),
            ("pending", 8, Some(-60.0)),
            ("unknown", 1, Some(4.0)),
            ("parked", 1, Some(700.0)),
        ]),
        oldest_dead_letter_secs: Some(10_800.0),
        findings: Findings {
            parked_attempts: 1,
            failed_returns: 2,
            overdue_attempts: 0,
            unclaimed_returns: 0,
            dead_letters: 4,
            in_review: 1,
            mark_requests: 0,
            doubtful_attempts: 1,
        },
    }
}

fn consumers() -> Consumers {
    let member = |name: &str, partitions: [i32; 2]| Member {
        client_id: name.to_owned(),
        host: "10.0.0.7".to_owned(),
        partitions: (partitions[0]..=partitions[1]).collect(),
    };
    Consumers {
        group: Some(GroupState {
            group: "refund-consumer".to_owned(),
            topic: "order.returns".to_owned(),
            lag: 41,
            members: vec![
                member("refund-consumer-1", [0, 5]),
                member("refund-consumer-2", [6, 11]),
            ],
            partitions: Vec::new(),
        }),
        topics: vec![
            "order.returns".to_owned(),
            "order.returns.status".to_owned(),
        ],
    }
}

fn alert(name: &str, state: AlertState, severity: &str) -> Alert {
    Alert {
        name: name.to_owned(),
        state,
        severity: severity.to_owned(),
        count: 1,
    }
}

fn overview() -> Overview {
    let relay = Program {
        address: "127.0.0.1:9102".to_owned(),
        metrics: read(Scrape {
            program: "outbox-relay",
            ..Scrape::default()
        }),
    };
    let mut hanging = relay.clone();
    hanging.address = "127.0.0.1:9103".to_owned();
    hanging.metrics.read_at = long_ago();
    hanging.metrics.trouble = Some("no answer within 4 s".to_owned());
    let mut overview = Overview {
        exit_code: 3,
        taken_at: "2026-12-01T14:00:05.123Z".to_owned(),
        waiting: Vec::new(),
        outbox: read(outbox()),
        outbox_counts: read(
            (0..16)
                .map(|shard| ShardCounts {
                    waiting_rows: 75 * shard,
                    parked_rows: i64::from(shard == 4) * 3,
                })
                .collect(),
        ),
        work: read(work()),
        consumers: Part {
            trouble: Some("cannot reach Kafka at kafka:9092: refused".to_owned()),
            read_at: long_ago(),
            ..read(consumers())
        },
        programs: vec![relay, hanging],
        alerts: Some(read(vec![
            alert("OutboxRowsParked", AlertState::Firing, "ticket"),
            alert("RefundConsumerLag", AlertState::Pending, "page"),
            alert("ReturnsApiGone", AlertState::Inactive, "page"),
        ])),
        rates: Rates {
            filed_per_sec: Some(120.4),
            published_per_sec: Some(361.0),
            claimed_per_sec: Some(119.8),
            refunded_per_sec: None,
        },
        errors: vec![SeenError {
            program: "outbox-relay",
            address: "127.0.0.1:9102".to_owned(),
            series: "outbox_database_errors_total read lock_conflict".to_owned(),
            count: 2.0,
            seen_at: long_ago(),
        }],
    };
    overview.find_waiting(&TopicArgs {
        topic_returns: "order.returns".to_owned(),
        topic_status: "order.returns.status".to_owned(),
    });
    overview
}

fn frame(screen: &mut Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("memory");
    terminal
        .draw(|frame| draw(frame, &mut *screen))
        .expect("memory");
    lines_of(terminal.backend().buffer()).join("\n") + "\n"
}

fn live(overview: Option<Overview>) -> Screen {
    let mut screen = Screen::new(Duration::from_secs(2), true);
    screen.show(overview);
    // Its age stays 0 s, however slow the machine is.
    screen.read_at += Duration::from_secs(3_600);
    screen
}

#[track_caller]
fn expect_frame(found: &str, expected: &str) {
    assert!(
        found == expected,
        "--- found:\n{found}--- expected:\n{expected}"
    );
}

#[test]
fn the_essentials_fit_80_columns_and_24_lines() {
    let found = frame(&mut live(Some(overview())), 80, 24);
    expect_frame(&found, include_str!("80x24.txt"));
}

#[test]
fn a_large_terminal_shows_everything() {
    let found = frame(&mut live(Some(overview())), 200, 50);
    expect_frame(&found, include_str!("200x50.txt"));
    assert!(!found.contains(" below "), "{found}");
}

/// Whatever the width: each line of a pane ends at the end of a word of the text.
#[test]
fn no_word_is_cut_at_any_width() {
    let words: Vec<String> = frame(&mut live(Some(overview())), 200, 200)
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    for width in [80, 100, 132] {
        let found = text(&mut Screen::still(overview()), width);
        for word in [
            "FIRING",
            "outbox_database_errors_total",
            "refund_failed",
            "kafka:9092:",
        ] {
            assert!(words.iter().any(|one| one == word), "{word}");
            assert!(found.contains(word), "{width}: {word}\n{found}");
        }
    }
}

#[test]
fn colors_can_be_turned_off_and_are_never_the_only_sign() {
    let buffer = |colors: bool| {
        let mut screen = live(Some(overview()));
        screen.colors = colors;
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("memory");
        terminal
            .draw(|frame| draw(frame, &mut screen))
            .expect("memory");
        terminal.backend().buffer().clone()
    };
    let colored = |buffer: &Buffer| buffer.content().iter().any(|cell| cell.fg != Color::Reset);
    assert!(colored(&buffer(true)));
    assert!(!colored(&buffer(false)));
    assert_eq!(lines_of(&buffer(true)), lines_of(&buffer(false)));
}

#[test]
fn a_pane_scrolls_to_its_last_line_and_no_further() {
    let mut screen = live(Some(overview()));
    screen.focus = 3;
    screen.scrolled[3] = 1_000;
    let found = frame(&mut screen, 80, 24);
    assert!(found.contains("inactive  ReturnsApiGone page"), "{found}");
    assert!(found.contains("> Alerts and errors"), "{found}");
    let last = screen.scrolled[3];
    screen.press(KeyEvent::from(KeyCode::PageDown));
    assert_eq!(frame(&mut screen, 80, 24), found);
    screen.press(KeyEvent::from(KeyCode::Up));
    frame(&mut screen, 80, 24);
    assert_eq!(screen.scrolled[3], last - 1);
}

#[test]
fn help_and_the_first_moments_have_a_page() {
    let mut screen = live(None);
    assert!(frame(&mut screen, 80, 24).contains("reading MySQL"));
    screen.shows_help = true;
    assert!(frame(&mut screen, 80, 24).contains("Tab, Left, Right"));
}
