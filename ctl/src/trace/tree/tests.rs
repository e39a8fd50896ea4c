use super::*;

fn span(id: &str, parent: Option<&str>, began: u64, until: u64) -> Span {
    Span {
        span_id: id.to_owned(),
        parent: parent.map(str::to_owned),
        name: id.to_owned(),
        began: began * 1_000_000,
        end: End::At {
            nanos: until * 1_000_000,
        },
        ..Span::default()
    }
}

fn drawn(spans: &[Span]) -> Vec<String> {
    let entries = entries(spans).into_iter();
    let line = |entry| match entry {
        Entry::Heading(text) => text,
        Entry::Gap { branch, .. } => format!("{branch}gap"),
        Entry::Span { branch, span, .. } => format!("{branch}{}", span.name),
    };
    entries.map(line).collect()
}

#[test]
fn children_stand_below_their_parent_in_the_order_in_which_they_began() {
    let spans = [
        span("late", Some("root"), 5, 6),
        span("early", Some("root"), 1, 9),
        span("root", None, 0, 9),
        span("grandchild", Some("early"), 12, 13),
    ];
    let lines = ["root", "├ early", "│ ┊ gap", "│ └ grandchild", "└ late"];
    assert_eq!(drawn(&spans), lines);
}

#[test]
fn a_span_without_its_parent_stands_below_a_line_that_says_so() {
    let spans = [
        span("root", None, 0, 1),
        span("b", Some("lost"), 3, 4),
        span("a", Some("lost"), 2, 3),
        span("child", Some("a"), 2, 3),
        span("c", Some("other"), 2, 3),
    ];
    assert_eq!(
        drawn(&spans),
        [
            "root",
            "the parent lost is not in this trace:",
            "├ a",
            "│ └ child",
            "└ b",
            "the parent other is not in this trace:",
            "└ c",
        ]
    );
    assert_eq!(
        drawn(&spans[1..2]),
        ["the parent lost is not in this trace:", "└ b"]
    );
}

#[test]
fn no_span_of_a_circle_is_lost_or_shown_twice() {
    let spans = [
        span("root", None, 0, 1),
        span("a", Some("c"), 1, 9),
        span("b", Some("a"), 2, 9),
        span("c", Some("b"), 3, 9),
        span("tail", Some("c"), 4, 9),
        span("self", Some("self"), 5, 9),
    ];
    let circle = "these spans name each other as their parents:";
    assert_eq!(
        drawn(&spans),
        [
            "root",
            circle,
            "└ a",
            "  └ b",
            "    └ c",
            "      └ tail",
            circle,
            "└ self"
        ]
    );
}

#[test]
fn spans_with_one_id_are_all_shown() {
    let spans = [
        span("twin", None, 0, 1),
        span("twin", None, 2, 3),
        span("child", Some("twin"), 1, 2),
    ];
    assert_eq!(drawn(&spans), ["twin", "└ child", "twin"]);
}

#[test]
fn a_chain_of_a_hundred_thousand_spans_stays_within_its_columns() {
    let chain: Vec<Span> = (0..100_000_u64)
        .map(|at| {
            let parent = at.checked_sub(1).map(|before| before.to_string());
            span(&at.to_string(), parent.as_deref(), at, at + 1)
        })
        .collect();
    let lines = drawn(&chain);
    assert_eq!(lines.len(), chain.len());
    assert_eq!(lines[11].trim_start(), "+1 11");
    let widest = lines.iter().map(|line| line.chars().count()).max();
    assert!(widest < Some(2 * LEVELS + 16), "{widest:?}");
}

#[test]
fn ten_thousand_children_are_drawn_at_once() {
    let mut spans: Vec<Span> = (0..10_000)
        .map(|at| span(&format!("c{at:05}"), Some("root"), at, at + 1))
        .collect();
    spans.push(span("root", None, 0, 10_000));
    let lines = drawn(&spans);
    assert_eq!((lines.len(), lines[10_000].as_str()), (10_001, "└ c09999"));
}
