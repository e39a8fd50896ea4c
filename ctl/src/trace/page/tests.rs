use super::super::span::Kind;
use super::*;

const MS: u64 = 1_000_000;

/// Microseconds after the first moment.
fn span(id: &str, parent: Option<&str>, name: &str, service: &str, from: u64, took: u64) -> Span {
    let began = 1_764_547_200_000_000_000 + from * 1_000;
    Span {
        span_id: id.to_owned(),
        parent: parent.map(str::to_owned),
        name: name.to_owned(),
        kind: Kind::Internal,
        service: service.to_owned(),
        began,
        end: End::At {
            nanos: began + took * 1_000,
        },
        ..Span::default()
    }
}

fn noted(span: Span, notes: &[&str]) -> Span {
    let notes = notes.iter().map(|note| (*note).to_owned()).collect();
    Span { notes, ..span }
}

fn page(width: usize) -> Page<'static> {
    Page {
        width,
        heads: ["span", "service"],
        names: &|link| format!("trace {}, span {}", link.trace_id, link.span_id),
    }
}

/// A return whose second event Kafka refused at first.
fn refund() -> Vec<Span> {
    let (api, relay, consumer) = ("returns-api", "outbox-relay", "refund-consumer");
    let mut spans = vec![
        noted(span("a", None, "POST /returns", api, 0, 6_120), &["201"]),
        span("b", Some("a"), "outbox.write", api, 400, 5_300),
        span("c", Some("b"), "outbox.wait", relay, 5_650, 812_000),
        span("d", Some("c"), "send order.returns", relay, 817_650, 4_010),
        noted(
            span(
                "e",
                Some("d"),
                "process order.returns",
                consumer,
                825_100,
                9_000,
            ),
            &["claimed"],
        ),
        noted(
            span("f", Some("e"), "refund", consumer, 834_200, 122_400),
            &["refunded"],
        ),
        noted(
            span("g", Some("f"), "POST", consumer, 835_000, 30_000),
            &["503"],
        ),
        noted(
            span("h", Some("f"), "POST", consumer, 905_000, 40_000),
            &["201"],
        ),
        span("i", Some("f"), "outbox.wait", relay, 956_000, 9_000),
        noted(
            span(
                "j",
                Some("i"),
                "send order.returns.status",
                relay,
                965_000,
                2_500,
            ),
            &["MessageTimedOut"],
        ),
        span(
            "k",
            Some("i"),
            "send order.returns.status",
            relay,
            1_025_000,
            2_500,
        ),
    ];
    spans[6].failed = true;
    spans[9].failed = true;
    spans[1].links.push(Link {
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(),
        span_id: "00f067aa0ba902b7".to_owned(),
    });
    spans
}

#[test]
fn a_trace_is_clear_at_80_columns() {
    let text = text(&refund(), &page(80));
    for line in text.lines() {
        assert!(width(line) <= 80, "{} columns: {line}", width(line));
    }
    assert_eq!(text, include_str!("golden-80.txt").trim_end());
}

#[test]
fn a_wide_terminal_gets_bars() {
    assert_eq!(
        text(&refund(), &page(120)),
        include_str!("golden-120.txt").trim_end()
    );
}

#[test]
fn what_is_no_span_yet_has_no_length() {
    let mut spans = vec![
        span("a", None, "return.initiated", "customer:42", 0, 0),
        span("b", Some("a"), "waits in the outbox", "", 0, 0),
        span("c", None, "later", "", 90_000_000, 0),
    ];
    spans[0].end = End::None;
    spans[1].end = End::Open;
    spans[2].end = End::None;
    let page = Page {
        heads: ["what", "by"],
        ..page(60)
    };
    assert_eq!(
        text(&spans, &page),
        "   start      took  what                   by\n  \
           0.0 ms            return.initiated       customer:42\n  \
           0.0 ms         …  └ waits in the outbox\n\
         90000 ms            later"
    );
}

#[test]
fn names_of_strangers_stay_in_their_columns_and_send_no_commands() {
    let name = "x\u{1b}[2J".repeat(40);
    let mut spans = vec![span("a", None, &name, &name, 0, 5_000)];
    spans[0].parent = Some(name.clone());
    spans[0].links = vec![
        Link {
            trace_id: "f".repeat(32),
            span_id: "1".repeat(16),
        };
        128
    ];
    let text = text(&spans, &page(80));
    for line in text.lines() {
        assert!(width(line) <= 80, "{} columns: {line}", width(line));
    }
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert!(text.contains("[1][1][1][+125]"), "{text}");
}

#[test]
fn times_keep_their_milliseconds_as_long_as_they_are_readable() {
    let shown = [
        0,
        MS / 20,
        99 * MS,
        1_204 * MS,
        99_999 * MS,
        100_000 * MS,
        30 * 86_400_000 * MS,
    ];
    let shown = shown.map(|nanos| time(nanos.into()));
    assert_eq!(
        shown,
        [
            "0.0 ms", "0.1 ms", "99.0 ms", "1204 ms", "99999 ms", "100 s", "30 d"
        ]
    );
    assert_eq!(time(-3_500_000), "-3.5 ms");
    for (nanos, most) in [(99_949_999, "99.9 ms"), (99_950_000, "100 ms")] {
        assert_eq!(time(nanos), most);
    }
}

#[test]
fn a_span_is_charged_with_the_time_in_which_no_child_ran() {
    let parent = span("a", None, "a", "s", 0, 100);
    let at = |us: u64| parent.began + us * 1_000;
    for (children, own) in [
        (&[][..], 100),
        (&[(10, 30), (20, 40), (90, 200)], 60),
        (&[(0, 100), (200, 300)], 0),
    ] {
        let children: Vec<_> = children.iter().map(|(a, b)| (at(*a), at(*b))).collect();
        assert_eq!(own_time(&parent, &children), own * 1_000, "{children:?}");
    }
}
