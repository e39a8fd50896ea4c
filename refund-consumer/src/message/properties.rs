//! Properties of every record, from any producer. Reading a record never panics. The values of an accepted record are
//! those that a plain reading of its bytes finds.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;

use super::*;

const NAMES: [&str; 10] = [
    "ce_specversion",
    "ce_id",
    "ce_type",
    "ce_subject",
    "content-type",
    "seq",
    "id",
    "event_type",
    "traceparent",
    "x",
];
/// Good somewhere, bad elsewhere.
const VALUES: [&str; 14] = [
    "",
    "1",
    "01",
    "2",
    "1.0",
    "1.0.",
    "456",
    "019ab000-0000-7000-8000-000000000001",
    "019AB000-0000-7000-8000-000000000001",
    "AZqwAAAAcACAAAAAAAAAAQ==",
    "return.initiated",
    "return.initiated.v1",
    "return.initiated.v2",
    "application/json",
];
/// Pieces of values that turn one JSON text into another, or into none.
const PIECES: [&str; 16] = [
    "\"return_id\":",
    "\"order_id\":",
    "\"seq\":1,",
    "\"x\":",
    "9223372036854775808",
    "0",
    "-",
    "e1",
    ".0",
    "\"",
    "{",
    "}",
    "[",
    ",",
    "\\u005f",
    " ",
];

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..80)
}

fn header() -> impl Strategy<Value = RecordHeader> {
    let name = prop_oneof![8 => select(&NAMES[..]).prop_map(str::to_owned), 1 => any::<String>()];
    let text = select(&VALUES[..]).prop_map(|text| Some(text.as_bytes().to_vec()));
    let value = prop_oneof![8 => text, 1 => bytes().prop_map(Some), 1 => Just(None)];
    (name, value)
}

fn any_record() -> impl Strategy<Value = Record> {
    let (key, payload) = (proptest::option::of(bytes()), proptest::option::of(bytes()));
    (key, payload, vec(header(), 0..6), any::<bool>()).prop_map(
        |(key, payload, headers, headers_readable)| Record {
            key,
            payload,
            headers,
            headers_readable,
            ..Record::default()
        },
    )
}

fn owned(headers: &[(&str, &str)]) -> Vec<RecordHeader> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), Some(value.as_bytes().to_vec()));
    headers.iter().map(own).collect()
}

/// As the relay sends it, as Debezium does, and bare.
fn good_record() -> impl Strategy<Value = Record> {
    (1..=i64::MAX, 1..=i64::MAX, 0..3).prop_map(|(return_id, order_id, form)| {
        let subject = return_id.to_string();
        let common = [("ce_subject", subject.as_str()), ("seq", "1")];
        let own = [
            ("ce_specversion", "1.0"),
            ("ce_id", VALUES[7]),
            ("ce_type", "return.initiated.v1"),
            ("content-type", "application/json"),
        ];
        let debezium = [("id", VALUES[9]), ("event_type", "return.initiated")];
        Record {
            key: Some(order_id.to_string().into_bytes()),
            payload: Some(
                format!(r#"{{"return_id":{return_id},"order_id":{order_id}}}"#).into_bytes(),
            ),
            headers: match form {
                0 => owned(&[&common[..], &own[..]].concat()),
                1 => owned(&[&common[..], &debezium[..]].concat()),
                _ => Vec::new(),
            },
            headers_readable: true,
            ..Record::default()
        }
    })
}

#[derive(Debug, Clone)]
enum Mutation {
    SetByte(Index, u8),
    Cut(Index, Index),
    Repeat(Index, Index),
    Insert(Index, &'static str),
    Key(Option<Vec<u8>>),
    AddHeader(RecordHeader),
    DropHeader(Index),
    RepeatHeader(Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::SetByte(at, byte)),
        (at(), at()).prop_map(|(from, to)| Mutation::Cut(from, to)),
        (at(), at()).prop_map(|(from, to)| Mutation::Repeat(from, to)),
        (at(), select(&PIECES[..])).prop_map(|(at, piece)| Mutation::Insert(at, piece)),
        proptest::option::of(bytes()).prop_map(Mutation::Key),
        header().prop_map(Mutation::AddHeader),
        at().prop_map(Mutation::DropHeader),
        at().prop_map(Mutation::RepeatHeader),
    ]
}

impl Mutation {
    fn apply(self, record: &mut Record) {
        let payload = record.payload.get_or_insert_default();
        let headers = &mut record.headers;
        let span = |from: Index, to: Index, len| {
            let (from, to) = (from.index(len + 1), to.index(len + 1));
            from.min(to)..from.max(to)
        };
        match self {
            Self::SetByte(at, byte) if !payload.is_empty() => *at.get_mut(payload) = byte,
            Self::Cut(from, to) => drop(payload.drain(span(from, to, payload.len()))),
            Self::Repeat(from, to) => payload.extend_from_within(span(from, to, payload.len())),
            Self::Insert(at, piece) => {
                let at = at.index(payload.len() + 1);
                drop(payload.splice(at..at, piece.bytes()));
            }
            Self::Key(key) => record.key = key,
            Self::AddHeader(header) => headers.push(header),
            Self::DropHeader(at) if !headers.is_empty() => {
                headers.remove(at.index(headers.len()));
            }
            Self::RepeatHeader(at) if !headers.is_empty() => {
                headers.push(at.get(headers).clone());
            }
            Self::SetByte(..) | Self::DropHeader(_) | Self::RepeatHeader(_) => {}
        }
    }
}

/// Compares the accepted values with plain readings of the same bytes.
fn check(record: &Record) -> Result<(), TestCaseError> {
    let Ok(read) = parse(record) else {
        return Ok(());
    };
    let payload = record.payload.as_deref().unwrap_or_default();
    let plain: Value = serde_json::from_slice(payload).expect("accepted, so JSON");
    prop_assert_eq!(plain["return_id"].as_i64(), Some(read.return_id.0));
    prop_assert_eq!(plain["order_id"].as_i64(), Some(read.order_id.0));
    prop_assert!(read.return_id.0 > 0 && read.order_id.0 > 0);
    if let Some(key) = &record.key {
        prop_assert_eq!(key, &read.order_id.to_string().into_bytes());
    }
    for (name, value) in &record.headers {
        let text = value.as_deref().map(String::from_utf8_lossy);
        match name.as_str() {
            "ce_id" => prop_assert_eq!(text, read.event_id.map(|id| id.to_string().into())),
            "ce_subject" => prop_assert_eq!(text, Some(read.return_id.to_string().into())),
            "seq" => prop_assert_eq!(text.as_deref(), Some("1")),
            _ => {}
        }
    }
    Ok(())
}

/// A field as text, and the id that it stands for if it stands for one.
fn field() -> impl Strategy<Value = (&'static str, &'static str, Option<i64>)> {
    let name = select(&["return_id", "order_id", "return\\u005fid", "seq", "x", "y"][..]);
    let value = select(
        &[
            ("1", Some(1)),
            ("7", Some(7)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("0", None),
            ("-1", None),
            ("1.0", None),
            ("1e0", None),
            ("\"1\"", None),
            ("null", None),
            ("{\"z\":1}", None),
            ("[1]", None),
        ][..],
    );
    (name, value).prop_map(|(name, (text, id))| (name, text, id))
}

/// The result of the rules for these fields, without reading any JSON.
fn expected(fields: &[(&str, &str, Option<i64>)]) -> Result<(i64, i64), Reason> {
    let unescape = |name: &str| name.replace("\\u005f", "_");
    let mut names: Vec<String> = fields.iter().map(|(name, ..)| unescape(name)).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Reason::DuplicateKey);
    }
    let number = |wanted: &str| match fields.iter().find(|(name, ..)| unescape(name) == wanted) {
        None => Ok(None),
        Some((_, _, None)) => Err(Reason::WrongType),
        Some((_, _, number)) => Ok(*number),
    };
    let id = |name: &str| number(name)?.ok_or(Reason::MissingField);
    let ids = (id("return_id")?, id("order_id")?);
    match number("seq")? {
        None | Some(1) => Ok(ids),
        Some(_) => Err(Reason::OtherSeq),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_record_is_read_or_refused(record in any_record()) {
        check(&record)?;
    }

    #[test]
    fn a_good_record_is_accepted(record in good_record()) {
        prop_assert!(parse(&record).is_ok());
        check(&record)?;
    }

    #[test]
    fn a_damaged_record_names_what_it_says_or_is_refused(
        record in good_record(),
        mutations in vec(mutation(), 1..4),
    ) {
        let mut record = record;
        for mutation in mutations {
            mutation.apply(&mut record);
        }
        check(&record)?;
    }

    #[test]
    fn an_object_is_read_as_its_fields_say(fields in vec(field(), 0..5)) {
        let texts = fields.iter().map(|(name, value, _)| format!("\"{name}\":{value}"));
        let payload = format!("{{{}}}", texts.collect::<Vec<_>>().join(","));
        let read = parse(&Record {
            payload: Some(payload.into_bytes()),
            headers_readable: true,
            ..Record::default()
        });
        let ids = read.map(|new| (new.return_id.0, new.order_id.0));
        prop_assert_eq!(ids, expected(&fields));
    }
}
