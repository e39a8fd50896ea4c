//! Unusual records: those that are put aside, each with its reason, and odd ones that are good.

use crate::harness::records::{FirstEvent, Message};

/// Makes the record for a return.
pub(super) type Make = fn(&About) -> Message;

/// The return that a record is about, and one that it is not about.
#[derive(Debug, Clone)]
pub(super) struct About {
    pub(super) first: FirstEvent,
    pub(super) other: FirstEvent,
}

impl About {
    fn relay(&self) -> Message {
        Message::relay(&self.first)
    }

    fn debezium(&self) -> Message {
        Message::debezium(&self.first)
    }

    fn bare(&self) -> Message {
        Message::bare(&self.first)
    }

    /// With R and O for the ids of return and order.
    fn json(&self, text: &str) -> String {
        let filed = &self.first.filed;
        text.replace('R', &filed.return_id.to_string())
            .replace('O', &filed.order_id.to_string())
    }

    /// The relay's record with another value.
    fn says(&self, text: &str) -> Message {
        self.relay().value(self.json(text))
    }

    /// An added field of this many bytes, so that the value takes `size`.
    fn padded(&self, size: usize) -> Message {
        let empty = self.json(r#"{"return_id":R,"order_id":O,"x":""}"#);
        let padding = "x".repeat(size - empty.len());
        self.relay()
            .value(empty.replace(r#""""#, &format!("\"{padding}\"")))
    }

    /// An added field that is this many arrays deep.
    fn nested(&self, depth: usize) -> Message {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        self.says(&format!(
            r#"{{"return_id":R,"order_id":O,"x":{open}{close}}}"#
        ))
    }

    /// The value of the relay's record with these bytes around it.
    fn around(&self, before: &[u8], after: &[u8]) -> Message {
        let value = self.json(r#"{"return_id":R,"order_id":O}"#);
        self.relay()
            .value([before, value.as_bytes(), after].concat())
    }
}

pub(super) const POISON: &[(&str, &[(&str, Make)])] = &[
    (
        "empty",
        &[
            ("no value", |of| of.relay().without_value()),
            ("a value of no bytes", |of| of.relay().value("")),
            ("no value, from Debezium", |of| {
                of.debezium().without_value()
            }),
            ("nothing at all", |of| {
                of.bare().without_key().without_value()
            }),
        ],
    ),
    (
        "not_json",
        &[
            ("words", |of| of.says("not json")),
            ("only spaces", |of| of.says(" \r\n\t")),
            ("cut off in the middle", |of| {
                of.says(r#"{"return_id":R,"ord"#)
            }),
            ("cut off before the end", |of| {
                of.says(r#"{"return_id":R,"order_id":O"#)
            }),
            ("bytes after the end", |of| of.around(b"", b" x")),
            ("a zero byte after the end", |of| of.around(b"", b"\0")),
            ("two values", |of| {
                of.says(r#"{"return_id":R,"order_id":O}{"return_id":R,"order_id":O}"#)
            }),
            ("a byte order mark", |of| of.around(b"\xef\xbb\xbf", b"")),
            ("a magic byte and a schema id before it", |of| {
                of.around(b"\0\0\0\0\x07", b"")
            }),
            ("UTF-16", |of| {
                let text = of.json(r#"{"return_id":R,"order_id":O}"#);
                let units = text.encode_utf16();
                of.relay()
                    .value(units.flat_map(u16::to_le_bytes).collect::<Vec<u8>>())
            }),
            ("bad UTF-8 in a value", |of| {
                of.relay().value(
                    [
                        of.json(r#"{"return_id":R,"order_id":O,"x":""#).as_bytes(),
                        b"\xff\"}",
                    ]
                    .concat(),
                )
            }),
            ("bad UTF-8 in a key", |of| {
                of.relay().value(
                    [
                        of.json(r#"{"return_id":R,"order_id":O,""#).as_bytes(),
                        b"\xc0\xaf\":1}",
                    ]
                    .concat(),
                )
            }),
            ("half a surrogate pair", |of| {
                of.says(r#"{"return_id":R,"order_id":O,"x":"\ud800"}"#)
            }),
            ("a line break inside a string", |of| {
                of.says("{\"return_id\":R,\"order_id\":O,\"x\":\"\n\"}")
            }),
            ("not a number", |of| {
                of.says(r#"{"return_id":NaN,"order_id":O}"#)
            }),
            ("infinity", |of| {
                of.says(r#"{"return_id":R,"order_id":Infinity}"#)
            }),
            ("single quotes", |of| {
                of.says("{'return_id':R,'order_id':O}")
            }),
            ("a name without quotes", |of| {
                of.says("{return_id:R,order_id:O}")
            }),
            ("a leading zero", |of| {
                of.says(r#"{"return_id":0R,"order_id":O}"#)
            }),
            ("a plus sign", |of| {
                of.says(r#"{"return_id":+R,"order_id":O}"#)
            }),
            ("hexadecimal", |of| {
                of.says(r#"{"return_id":0x1,"order_id":O}"#)
            }),
            ("a comma after the last field", |of| {
                of.says(r#"{"return_id":R,"order_id":O,}"#)
            }),
            ("a comment", |of| {
                of.says(r#"{"return_id":R,"order_id":O/* */}"#)
            }),
            ("arbitrary bytes", |of| {
                of.relay().value((0..=255).collect::<Vec<u8>>())
            }),
            ("words, from Debezium", |of| of.debezium().value("not json")),
            ("words, bare", |of| {
                of.bare().without_key().value("not json")
            }),
        ],
    ),
    (
        "too_deep",
        &[
            ("arrays, never closed", |of| {
                of.relay()
                    .value(of.json(r#"{"return_id":R,"order_id":O,"x":"#) + &"[".repeat(10_000))
            }),
            ("arrays", |of| of.nested(200)),
            ("arrays and nothing else", |of| {
                of.says(&("[".repeat(10_000) + &"]".repeat(10_000)))
            }),
            ("objects", |of| {
                let deep = r#"{"x":"#.repeat(200) + "1" + &"}".repeat(200);
                of.says(&format!(r#"{{"return_id":R,"order_id":O,"x":{deep}}}"#))
            }),
        ],
    ),
    (
        "duplicate_key",
        &[
            ("the return twice", |of| {
                of.says(r#"{"return_id":R,"order_id":O,"return_id":R}"#)
            }),
            ("two returns", |of| {
                of.says(r#"{"return_id":R,"order_id":O,"return_id":1}"#)
            }),
            ("the order twice", |of| {
                of.says(r#"{"return_id":R,"order_id":O,"order_id":O}"#)
            }),
            ("an added field twice", |of| {
                of.says(r#"{"return_id":R,"order_id":O,"x":1,"x":2}"#)
            }),
            ("the return twice, once escaped", |of| {
                of.says(r#"{"return_id":R,"order_id":O,"return\u005fid":R}"#)
            }),
            ("within an added object", |of| {
                of.says(r#"{"return_id":R,"order_id":O,"x":{"y":1,"y":1}}"#)
            }),
            ("within an added array", |of| {
                of.says(r#"{"return_id":R,"order_id":O,"x":[{"y":1,"y":1}]}"#)
            }),
            ("from Debezium", |of| {
                of.debezium()
                    .value(of.json(r#"{"return_id":R,"return_id":R,"order_id":O}"#))
            }),
            ("bare", |of| {
                of.bare()
                    .value(of.json(r#"{"return_id":R,"order_id":O,"order_id":O}"#))
            }),
        ],
    ),
    (
        "wrong_type",
        &[
            ("a return in quotes", |of| {
                of.says(r#"{"return_id":"R","order_id":O}"#)
            }),
            ("an order in quotes", |of| {
                of.says(r#"{"return_id":R,"order_id":"O"}"#)
            }),
            ("a fraction of nothing", |of| {
                of.says(r#"{"return_id":R.0,"order_id":O}"#)
            }),
            ("a fraction", |of| {
                of.says(r#"{"return_id":R.5,"order_id":O}"#)
            }),
            ("an exponent", |of| {
                of.says(r#"{"return_id":Re0,"order_id":O}"#)
            }),
            ("a negative exponent", |of| {
                of.says(r#"{"return_id":R,"order_id":O0e-1}"#)
            }),
            ("a negative return", |of| {
                of.says(r#"{"return_id":-R,"order_id":O}"#)
            }),
            ("a negative order", |of| {
                of.says(r#"{"return_id":R,"order_id":-O}"#)
            }),
            ("no return", |of| of.says(r#"{"return_id":0,"order_id":O}"#)),
            ("minus zero", |of| {
                of.says(r#"{"return_id":-0,"order_id":O}"#)
            }),
            ("above 63 bits", |of| {
                of.says(r#"{"return_id":9223372036854775808,"order_id":O}"#)
            }),
            ("above 64 bits", |of| {
                of.says(r#"{"return_id":R,"order_id":18446744073709551616}"#)
            }),
            ("64 bits more than the return", |of| {
                let id = i128::from(of.first.filed.return_id.0) + (1_i128 << 64);
                of.says(&format!(r#"{{"return_id":{id},"order_id":O}}"#))
            }),
            ("beyond a double", |of| {
                of.says(r#"{"return_id":1e400,"order_id":O}"#)
            }),
            ("an added field beyond a double", |of| {
                of.says(r#"{"return_id":R,"order_id":O,"x":1e400}"#)
            }),
            ("null", |of| of.says(r#"{"return_id":R,"order_id":null}"#)),
            ("a truth", |of| {
                of.says(r#"{"return_id":true,"order_id":O}"#)
            }),
            ("an array around the return", |of| {
                of.says(r#"{"return_id":[R],"order_id":O}"#)
            }),
            ("an object around the order", |of| {
                of.says(r#"{"return_id":R,"order_id":{"id":O}}"#)
            }),
            ("an array around it all", |of| of.around(b"[", b"]")),
            ("two ids", |of| of.says("[R,O]")),
            ("a number alone", |of| of.says("R")),
            ("null alone", |of| of.says("null")),
            ("an object in quotes", |of| {
                of.says(r#""{\"return_id\":R,\"order_id\":O}""#)
            }),
            ("a position in quotes", |of| {
                of.says(r#"{"return_id":R,"order_id":O,"seq":"1"}"#)
            }),
            ("a return in quotes, from Debezium", |of| {
                of.debezium()
                    .value(of.json(r#"{"return_id":"R","order_id":O}"#))
            }),
            ("a return in quotes, bare", |of| {
                of.bare()
                    .value(of.json(r#"{"return_id":"R","order_id":O}"#))
            }),
        ],
    ),
    (
        "missing_field",
        &[
            ("no fields", |of| of.says("{}")),
            ("only the return", |of| of.says(r#"{"return_id":R}"#)),
            ("only the order", |of| of.says(r#"{"order_id":O}"#)),
            ("other capitals", |of| {
                of.says(r#"{"return_id":R,"order_Id":O}"#)
            }),
            ("an envelope around it", |of| {
                of.around(br#"{"schema":null,"payload":"#, b"}")
            }),
            ("no fields, from Debezium", |of| of.debezium().value("{}")),
        ],
    ),
    (
        "too_large",
        &[
            ("one byte too many", |of| of.padded(65_537)),
            ("spaces", |of| of.around(&[b' '; 65_536], b"")),
            ("as large as Kafka takes", |of| {
                of.relay().value(vec![b'x'; 1_500_000])
            }),
            ("one byte too many, from Debezium", |of| {
                let payload = of.padded(65_537).payload;
                of.debezium().value(payload.unwrap_or_default())
            }),
        ],
    ),
    (
        "unknown_type",
        &[
            ("the next version", |of| {
                of.relay().with("ce_type", "return.initiated.v2")
            }),
            ("a minor of the next version", |of| {
                of.relay().with("ce_type", "return.initiated.v2.1")
            }),
            ("the version before", |of| {
                of.relay().with("ce_type", "return.initiated.v0")
            }),
            ("version 10", |of| {
                of.relay().with("ce_type", "return.initiated.v10")
            }),
            ("version 01", |of| {
                of.relay().with("ce_type", "return.initiated.v01")
            }),
            ("version +1", |of| {
                of.relay().with("ce_type", "return.initiated.v+1")
            }),
            ("a minor without a number", |of| {
                of.relay().with("ce_type", "return.initiated.v1.")
            }),
            ("a minor that is no number", |of| {
                of.relay().with("ce_type", "return.initiated.v1.x")
            }),
            ("no version", |of| {
                of.relay().with("ce_type", "return.initiated")
            }),
            ("two versions", |of| {
                of.relay().with("ce_type", "return.initiated.v1.v1")
            }),
            ("a capital", |of| {
                of.relay().with("ce_type", "return.initiated.V1")
            }),
            ("a space", |of| {
                of.relay().with("ce_type", "return.initiated.v1 ")
            }),
            ("empty", |of| of.relay().with("ce_type", "")),
            ("a later event", |of| {
                of.relay().with("ce_type", "refund.succeeded.v1")
            }),
            ("the event of another system", |of| {
                of.relay()
                    .with("ce_type", "com.example.return.initiated.v1")
            }),
            ("a later event, from Debezium", |of| {
                of.debezium().with("event_type", "refund.succeeded")
            }),
            ("a version, from Debezium", |of| {
                of.debezium().with("event_type", "return.initiated.v1")
            }),
            ("empty, from Debezium", |of| {
                of.debezium().with("event_type", "")
            }),
        ],
    ),
    (
        "unknown_spec_version",
        &[
            ("the next version", |of| {
                of.relay().with("ce_specversion", "2.0")
            }),
            ("the version before", |of| {
                of.relay().with("ce_specversion", "0.3")
            }),
            ("empty", |of| of.relay().with("ce_specversion", "")),
        ],
    ),
    (
        "other_content_type",
        &[
            ("an event in structured mode", |of| {
                of.relay()
                    .with("content-type", "application/cloudevents+json")
            }),
            ("text", |of| of.relay().with("content-type", "text/plain")),
            ("Avro", |of| {
                of.relay().with("content-type", "application/avro")
            }),
            ("empty", |of| of.relay().with("content-type", "")),
            ("from Debezium", |of| {
                of.debezium()
                    .and("content-type", "application/octet-stream")
            }),
        ],
    ),
    (
        "bad_event_id",
        &[
            ("a number", |of| of.relay().with("ce_id", "456")),
            ("empty", |of| of.relay().with("ce_id", "")),
            ("one digit short", |of| {
                of.relay().with("ce_id", &id(of)[..35])
            }),
            ("one digit more", |of| {
                of.relay().with("ce_id", id(of) + "0")
            }),
            ("a digit that is none", |of| {
                of.relay().with("ce_id", id(of).replacen('0', "g", 1))
            }),
            ("capitals", |of| {
                of.relay().with("ce_id", id(of).to_uppercase())
            }),
            ("no hyphens", |of| {
                of.relay().with("ce_id", id(of).replace('-', ""))
            }),
            ("braces", |of| {
                of.relay().with("ce_id", format!("{{{}}}", id(of)))
            }),
            ("a URN", |of| {
                of.relay().with("ce_id", format!("urn:uuid:{}", id(of)))
            }),
            ("a line break", |of| of.relay().with("ce_id", id(of) + "\n")),
            ("300 kB", |of| of.relay().with("ce_id", "0".repeat(300_000))),
            ("Debezium's form", |of| {
                of.relay().with("ce_id", &of.first.id_in_base64)
            }),
            ("the relay's form, from Debezium", |of| {
                of.debezium().with("id", id(of))
            }),
            ("empty, from Debezium", |of| of.debezium().with("id", "")),
            ("no padding, from Debezium", |of| {
                of.debezium()
                    .with("id", of.first.id_in_base64.replace('=', ""))
            }),
            ("15 bytes, from Debezium", |of| {
                of.debezium().with("id", "AAAAAAAAAAAAAAAAAAAA")
            }),
            ("a line break, from Debezium", |of| {
                of.debezium()
                    .with("id", of.first.id_in_base64.clone() + "\n")
            }),
        ],
    ),
    (
        "bad_headers",
        &[
            ("an id without a value", |of| of.relay().null("ce_id")),
            ("a type without a value", |of| of.relay().null("ce_type")),
            ("a specification without a value", |of| {
                of.relay().null("ce_specversion")
            }),
            ("a subject without a value", |of| {
                of.relay().null("ce_subject")
            }),
            ("a content type without a value", |of| {
                of.relay().null("content-type")
            }),
            ("a position without a value", |of| of.relay().null("seq")),
            ("an id that is no text", |of| {
                of.relay().with("ce_id", b"\xff\xfe")
            }),
            ("an id in its 16 bytes", |of| {
                of.relay()
                    .with("ce_id", of.first.filed.event_id.0.as_bytes())
            }),
            ("a type that is no text", |of| {
                of.relay().with("ce_type", b"return.initiated.v1\xff")
            }),
            ("a subject that is no text", |of| {
                of.relay().with("ce_subject", b"\x80")
            }),
            ("an id without a value, from Debezium", |of| {
                of.debezium().null("id")
            }),
            ("a type without a value, from Debezium", |of| {
                of.debezium().null("event_type")
            }),
            ("a position without a value, from Debezium", |of| {
                of.debezium().null("seq")
            }),
            ("an id that is no text, from Debezium", |of| {
                of.debezium().with("id", b"\xff")
            }),
        ],
    ),
    (
        "duplicate_header",
        &[
            ("one id twice", |of| of.relay().and("ce_id", id(of))),
            ("two ids", |of| {
                of.relay().and("ce_id", of.other.filed.event_id.to_string())
            }),
            ("one type twice", |of| {
                of.relay().and("ce_type", "return.initiated.v1")
            }),
            ("two types", |of| {
                of.relay().and("ce_type", "return.initiated.v2")
            }),
            ("a type, and one without a value", |of| {
                of.relay().and("ce_type", "").null("ce_type")
            }),
            ("a specification twice", |of| {
                of.relay().and("ce_specversion", "1.0")
            }),
            ("a subject twice", |of| {
                of.relay().and("ce_subject", of.json("R"))
            }),
            ("a content type twice", |of| {
                of.relay().and("content-type", "application/json")
            }),
            ("a position twice", |of| of.relay().and("seq", "1")),
            ("one id twice, from Debezium", |of| {
                of.debezium().and("id", &of.first.id_in_base64)
            }),
            ("two types, from Debezium", |of| {
                of.debezium().and("event_type", "refund.succeeded")
            }),
        ],
    ),
    (
        "other_seq",
        &[
            ("a later event", |of| of.relay().with("seq", "2")),
            ("a later event, and an empty header at the end", |of| {
                of.relay().with("seq", "2").and("x", "")
            }),
            ("before the first", |of| of.relay().with("seq", "0")),
            ("a leading zero", |of| of.relay().with("seq", "01")),
            ("empty", |of| of.relay().with("seq", "")),
            ("four bytes", |of| {
                of.relay().with("seq", 1_i32.to_be_bytes())
            }),
            ("a later event's value", |of| {
                of.says(r#"{"return_id":R,"order_id":O,"status":"refunded","seq":4}"#)
            }),
            ("a later event's value, bare", |of| {
                of.bare()
                    .value(of.json(r#"{"return_id":R,"order_id":O,"status":"refunded","seq":4}"#))
            }),
            ("a later event, from Debezium", |of| {
                of.debezium().with("seq", "2")
            }),
        ],
    ),
    (
        "other_subject",
        &[
            ("another return", |of| {
                of.relay()
                    .with("ce_subject", of.other.filed.return_id.to_string())
            }),
            ("a leading zero", |of| {
                of.relay().with("ce_subject", of.json("0R"))
            }),
            ("empty", |of| of.relay().with("ce_subject", "")),
            ("another return, from Debezium", |of| {
                of.debezium()
                    .with("ce_subject", of.other.filed.return_id.to_string())
            }),
        ],
    ),
    (
        "other_key",
        &[
            ("another order", |of| {
                of.relay().key(of.other.filed.order_id.to_string())
            }),
            ("no bytes", |of| of.relay().key("")),
            ("a leading zero", |of| of.relay().key(of.json("0O"))),
            ("a line break", |of| of.relay().key(of.json("O\n"))),
            ("in quotes", |of| of.relay().key(of.json("\"O\""))),
            ("eight bytes", |of| {
                of.relay().key(of.first.filed.order_id.0.to_be_bytes())
            }),
            ("100 kB", |of| of.relay().key("1".repeat(100_000))),
            ("no text", |of| of.bare().key(b"\xff")),
            ("another order, bare", |of| {
                of.bare().key(of.other.filed.order_id.to_string())
            }),
            ("another order, from Debezium", |of| {
                of.debezium().key(of.other.filed.order_id.to_string())
            }),
        ],
    ),
    (
        "unknown_return",
        &[
            ("no such return", |of| {
                of.says(r#"{"return_id":9223372036854775807,"order_id":O}"#)
                    .with("ce_subject", "9223372036854775807")
            }),
            ("no such return, from Debezium", |of| {
                let value = of.json(r#"{"return_id":987654321,"order_id":O}"#);
                of.debezium().value(value).with("ce_subject", "987654321")
            }),
            ("no such return, bare", |of| {
                of.bare()
                    .value(of.json(r#"{"return_id":987654321,"order_id":O}"#))
            }),
            ("no such return or order", |of| {
                of.bare()
                    .without_key()
                    .value(r#"{"return_id":987654321,"order_id":987654321}"#)
            }),
        ],
    ),
    (
        "other_order",
        &[
            ("an order of another return", |of| swapped(of, of.relay())),
            ("an order of another return, from Debezium", |of| {
                swapped(of, of.debezium())
            }),
            ("an order of another return, bare", |of| {
                swapped(of, of.bare()).without_key()
            }),
            ("no such order", |of| {
                of.says(r#"{"return_id":R,"order_id":987654321}"#)
                    .key("987654321")
            }),
        ],
    ),
    (
        "other_event",
        &[
            ("the event of another return", |of| {
                of.relay()
                    .with("ce_id", of.other.filed.event_id.to_string())
            }),
            ("an unknown event", |of| {
                of.relay()
                    .with("ce_id", "019ab000-0000-7000-8000-000000000001")
            }),
            ("an id of another version", |of| {
                of.relay()
                    .with("ce_id", "0e4f1d3a-5c1e-4f6e-9d8a-1b2c3d4e5f60")
            }),
            ("zeros", |of| {
                of.relay()
                    .with("ce_id", "00000000-0000-0000-0000-000000000000")
            }),
            ("the event of another return, from Debezium", |of| {
                of.debezium().with("id", &of.other.id_in_base64)
            }),
        ],
    ),
];

pub(super) const GOOD: &[(&str, Make)] = &[
    ("from the relay", About::relay),
    ("from Debezium", About::debezium),
    ("bare", About::bare),
    ("bare, without a key", |of| of.bare().without_key()),
    ("without a key", |of| of.relay().without_key()),
    ("added fields", |of| {
        of.says(r#"{"return_id":R,"order_id":O,"channel":"web","nested":{"a":[1,null,true,-2.5e-3,"\u00e9"]}}"#)
    }),
    ("added names that only resemble ours", |of| {
        of.says(r#"{"return_Id":1,"return_id":R,"order_id":O,"order_id ":1,"x":{"return_id":1}}"#)
    }),
    ("other order, and spaces", |of| {
        of.says("\n{\t\"order_id\" : O ,\r\n \"return_id\" : R }\n")
    }),
    ("escaped names", |of| {
        of.says(r#"{"return\u005fid":R,"\u006frder_id":O}"#)
    }),
    ("as large as may be", |of| of.padded(65_536)),
    ("as deep as may be", |of| of.nested(126)),
    ("its position in the value", |of| {
        of.says(r#"{"return_id":R,"order_id":O,"seq":1}"#)
    }),
    (
        "added headers, some of them twice, empty or no text",
        |of| {
            let more = of
                .relay()
                .and("x", "1")
                .and("x", b"\xff")
                .and("", "")
                .and("ce_dataschema", "")
                .null("ce_dataschema");
            more.and("Ce_Type", "another name").and("\u{e9}", "")
        },
    ),
    ("a later minor version", |of| {
        of.relay().with("ce_type", "return.initiated.v1.7")
    }),
    ("a later minor version of CloudEvents", |of| {
        of.relay().with("ce_specversion", "1.1")
    }),
    ("an added parameter", |of| {
        of.relay()
            .with("content-type", "Application/JSON ; charset=utf-8")
    }),
    ("only the id as a header", |of| {
        of.bare().and("ce_id", id(of))
    }),
    ("only the type as a header", |of| {
        of.bare().and("ce_type", "return.initiated.v1")
    }),
    ("headers that others also send", |of| {
        of.relay()
            .and("id", "7")
            .and("event_type", "x")
            .and("event_type", "y")
    }),
    ("headers that are not compared", |of| {
        of.relay()
            .with("ce_source", "/elsewhere")
            .with("ce_time", "yesterday")
            .null("x-outbox-epoch")
    }),
    ("a broken trace", |of| {
        of.relay().with("traceparent", "00-zz")
    }),
    ("two traces", |of| {
        of.relay().and(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )
    }),
    ("a trace that is no text", |of| {
        of.debezium()
            .with("traceparent", b"\xff")
            .and("tracestate", "a=1")
    }),
];

fn id(of: &About) -> String {
    of.first.filed.event_id.to_string()
}

/// Names the order of another return, with the key that belongs to it.
fn swapped(of: &About, message: Message) -> Message {
    let order = of.other.filed.order_id.to_string();
    let value = format!(
        r#"{{"return_id":{},"order_id":{order}}}"#,
        of.first.filed.return_id
    );
    message.value(value).key(order)
}
