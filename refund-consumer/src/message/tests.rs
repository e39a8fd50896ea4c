use super::*;

fn record(payload: &[u8], headers: &[(&str, &str)]) -> Record {
    Record {
        payload: Some(payload.to_vec()),
        headers: headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Some(value.as_bytes().to_vec())))
            .collect(),
        headers_readable: true,
        ..Record::default()
    }
}

const BODY: &[u8] = br#"{"return_id":456,"order_id":123}"#;
const ID: &str = "019ab000-0000-7000-8000-000000000001";

#[test]
fn a_message_of_the_relay_is_read() {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let record = record(
        BODY,
        &[
            ("ce_id", ID),
            ("ce_type", "return.initiated.v1"),
            ("traceparent", trace),
        ],
    );
    let read = parse(&record).expect("good");
    assert_eq!(
        (read.return_id, read.order_id),
        (ReturnId(456), OrderId(123))
    );
    assert_eq!(read.event_id.map(|id| id.to_string()).as_deref(), Some(ID));
    assert_eq!(
        record
            .trace()
            .map(|t| t.traceparent().to_owned())
            .as_deref(),
        Some(trace)
    );
}

#[test]
fn p10_a_redriven_message_is_read_as_it_was() {
    for mut headers in [
        vec![],
        vec![("ce_id", ID), ("ce_type", "return.initiated.v1")],
        vec![
            ("id", "AaIIo12vd2ii1F0+YpCC/w=="),
            ("event_type", "return.initiated"),
        ],
    ] {
        let before = parse(&record(BODY, &headers));
        headers.push((header::REDRIVEN_FROM, "order.returns/1/12"));
        assert!(before.is_ok());
        assert_eq!(parse(&record(BODY, &headers)), before, "{headers:?}");
    }
}

/// Headers as captured from Debezium 3.5.0.Final with the configuration of docs/EVENTS.md.
#[test]
fn a_message_of_debezium_is_read_to_the_same_event_as_the_relays() {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let body = br#"{"return_id":4,"order_id":4}"#;
    let debezium = parse(&record(
        body,
        &[
            ("id", "AaIIo12vd2ii1F0+YpCC/w=="),
            ("ce_subject", "4"),
            ("seq", "1"),
            ("event_type", "return.initiated"),
            ("created_at", "1795441253804119"),
            ("traceparent", trace),
            ("tracestate", "vendor=abc"),
        ],
    ));
    let relay = parse(&record(
        body,
        &[
            ("ce_id", "01a208a3-5daf-7768-a2d4-5d3e629082ff"),
            ("ce_type", "return.initiated.v1"),
            ("traceparent", trace),
            ("tracestate", "vendor=abc"),
        ],
    ));
    assert!(relay.is_ok());
    assert_eq!(debezium, relay);
}

/// Debezium writes an empty column as a header without a value.
#[test]
fn a_header_without_a_value_is_no_trace() {
    let mut record = record(BODY, &[("id", "AaIIo1z0cyObi2iIkmAqGg==")]);
    for name in ["traceparent", "tracestate"] {
        record.headers.push((name.to_owned(), None));
    }
    assert!(parse(&record).is_ok());
    assert_eq!(record.trace(), None);
}

#[test]
fn a_bare_message_is_read() {
    let read = parse(&record(BODY, &[])).expect("good");
    assert_eq!(read.event_id, None);
}

#[test]
fn added_fields_and_minor_versions_are_accepted() {
    let more = br#"{"return_id":456,"order_id":123,"channel":"web","nested":{"a":[1]}}"#;
    assert!(parse(&record(more, &[("ce_type", "return.initiated.v1.7")])).is_ok());
    let first = br#" {"seq":1,"order_id":123,"return\u005fid":456} "#;
    let json = ("content-type", "Application/JSON; charset=utf-8");
    assert_eq!(parse(&record(first, &[json])), parse(&record(BODY, &[])));
}

#[test]
fn every_bad_payload_has_its_reason() {
    let deep = format!(
        r#"{{"return_id":1,"order_id":1,"x":{}}}"#,
        "[".repeat(10_000)
    );
    let large = format!(
        r#"{{"return_id":1,"order_id":1,"x":"{}"}}"#,
        "x".repeat(MAX_PAYLOAD_BYTES)
    );
    let cases: [(&[u8], Reason); 28] = [
        (b"", Reason::Empty),
        (b"not json", Reason::NotJson),
        (b"{\"return_id\":1", Reason::NotJson),
        (b"{\"return_id\":1,\"order_id\":2} x", Reason::NotJson),
        (b"\xff\xfe", Reason::NotJson),
        (deep.as_bytes(), Reason::TooDeep),
        (large.as_bytes(), Reason::TooLarge),
        (
            br#"{"return_id":1,"return_id":2,"order_id":1}"#,
            Reason::DuplicateKey,
        ),
        (
            br#"{"return_id":1,"order_id":1,"x":1,"x":2}"#,
            Reason::DuplicateKey,
        ),
        (
            br#"{"return_id":1,"order_id":1,"return\u005fid":1}"#,
            Reason::DuplicateKey,
        ),
        (
            br#"{"return_id":1,"order_id":1,"x":[{"y":1,"y":1}]}"#,
            Reason::DuplicateKey,
        ),
        (br#"{"return_id":"1","order_id":1}"#, Reason::WrongType),
        (br#"{"return_id":1.5,"order_id":1}"#, Reason::WrongType),
        (br#"{"return_id":-1,"order_id":1}"#, Reason::WrongType),
        (br#"{"return_id":1e30,"order_id":1}"#, Reason::WrongType),
        (br#"{"return_id":null,"order_id":1}"#, Reason::WrongType),
        (br#"{"return_id":1e400,"order_id":1}"#, Reason::WrongType),
        (br#"{"return_id":1e0,"order_id":1}"#, Reason::WrongType),
        (br#"{"return_id":0,"order_id":1}"#, Reason::WrongType),
        (br#"{"return_id":-0,"order_id":1}"#, Reason::WrongType),
        (
            br#"{"return_id":1,"order_id":9223372036854775808}"#,
            Reason::WrongType,
        ),
        (
            br#"{"return_id":1,"order_id":1,"seq":"1"}"#,
            Reason::WrongType,
        ),
        (br"[1,2]", Reason::WrongType),
        (br"7", Reason::WrongType),
        (br#"{"return_id":1}"#, Reason::MissingField),
        (br#"{"return_id":NaN,"order_id":1}"#, Reason::NotJson),
        (
            b"\xef\xbb\xbf{\"return_id\":1,\"order_id\":1}",
            Reason::NotJson,
        ),
        (br#"{"return_id":1,"order_id":1,"seq":2}"#, Reason::OtherSeq),
    ];
    for (payload, reason) in cases {
        let text = String::from_utf8_lossy(&payload[..payload.len().min(60)]).into_owned();
        assert_eq!(parse(&record(payload, &[])), Err(reason), "{text}");
    }
}

#[test]
fn every_bad_header_has_its_reason() {
    for (headers, reason) in [
        ([("ce_type", "return.initiated.v2")], Reason::UnknownType),
        ([("ce_type", "return.refunded.v1")], Reason::UnknownType),
        ([("ce_type", "return.initiated")], Reason::UnknownType),
        ([("ce_id", "456")], Reason::BadEventId),
        ([("event_type", "return.refunded")], Reason::UnknownType),
        ([("event_type", "")], Reason::UnknownType),
        ([("id", ID)], Reason::BadEventId),
        ([("id", "")], Reason::BadEventId),
        (
            [("ce_id", "019AB000-0000-7000-8000-000000000001")],
            Reason::BadEventId,
        ),
        (
            [("ce_id", "019ab0000000700080000000000000001")],
            Reason::BadEventId,
        ),
        ([("ce_type", "return.initiated.v01")], Reason::UnknownType),
        ([("ce_type", "return.initiated.v+1")], Reason::UnknownType),
        ([("ce_type", "return.initiated.v1.")], Reason::UnknownType),
        ([("ce_type", "return.initiated.v1.x")], Reason::UnknownType),
        ([("ce_specversion", "2.0")], Reason::UnknownSpecVersion),
        (
            [("content-type", "application/cloudevents+json")],
            Reason::OtherContentType,
        ),
        ([("seq", "2")], Reason::OtherSeq),
        ([("ce_subject", "457")], Reason::OtherSubject),
    ] {
        assert_eq!(parse(&record(BODY, &headers)), Err(reason), "{headers:?}");
    }
    let mut unreadable = record(BODY, &[]);
    unreadable.headers_readable = false;
    assert_eq!(parse(&unreadable), Err(Reason::UnreadableHeader));
}

/// Those of the relay, and those that Debezium sends in their place.
const READ: [&str; 8] = [
    "ce_specversion",
    "ce_type",
    "content-type",
    "ce_id",
    "seq",
    "ce_subject",
    "event_type",
    "id",
];

#[test]
fn a_header_that_is_read_must_be_text_and_stand_once() {
    for name in READ {
        for value in [None, Some(vec![0xff])] {
            let mut bad = record(BODY, &[]);
            bad.headers.push((name.to_owned(), value));
            assert_eq!(parse(&bad), Err(Reason::BadHeaders), "{name}");
        }
        let twice = record(BODY, &[(name, "1"), (name, "1")]);
        assert_eq!(parse(&twice), Err(Reason::DuplicateHeader), "{name}");
    }
}

#[test]
fn a_header_that_is_not_read_may_be_anything() {
    let mut odd = record(BODY, &[("ce_id", ID), ("ce_type", "return.initiated.v1")]);
    // Debezium's names are everyday words: next to the relay's headers they come from another sender.
    for name in ["x", "ce_time", "id", "event_type", "traceparent"] {
        for value in [None, Some(vec![0xff]), Some(b"1".to_vec())] {
            odd.headers.push((name.to_owned(), value));
        }
    }
    let read = parse(&odd).expect("good");
    assert_eq!(read.event_id.map(|id| id.to_string()).as_deref(), Some(ID));
    assert_eq!(odd.trace(), None);
}

#[test]
fn a_key_is_the_order_or_absent() {
    let mut keyed = record(BODY, &[]);
    for (key, fits) in [("123", true), ("456", false), ("0123", false), ("", false)] {
        keyed.key = Some(key.as_bytes().to_vec());
        let refused = parse(&keyed).err();
        assert_eq!(refused, (!fits).then_some(Reason::OtherKey), "{key:?}");
    }
}
