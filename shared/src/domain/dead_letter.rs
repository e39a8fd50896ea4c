//! How a dead letter stores the headers of its record. The refund consumer writes them, and `returnsctl` sends them again.

use serde_json::{Value, json};

/// Name and value of each header, in the record's order. Names may repeat; values are bytes, or absent.
pub type Headers = Vec<(String, Option<Vec<u8>>)>;

/// The value of `dead_letters.reason` for a record with missing headers, which cannot be sent again as it was.
pub const UNREADABLE_HEADER: &str = "unreadable_header";

/// The text of `dead_letters.headers`: `[["name","hex of the value"], ["name",null]]`.
pub fn encode_headers(headers: &[(String, Option<Vec<u8>>)]) -> String {
    let pair = |(name, value): &(String, Option<Vec<u8>>)| {
        json!([name, value.as_deref().map(hex::encode)])
    };
    Value::from_iter(headers.iter().map(pair)).to_string()
}

/// The headers that [`encode_headers`] wrote; `None` for anything else.
pub fn decode_headers(stored: &[u8]) -> Option<Headers> {
    let pairs: Vec<(String, Option<String>)> = serde_json::from_slice(stored).ok()?;
    let read = |(name, digits): (String, Option<String>)| match digits {
        None => Some((name, None)),
        Some(digits) => Some((name, Some(hex::decode(digits).ok()?))),
    };
    pairs.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p10_headers_keep_order_repeats_nulls_and_bytes() {
        let headers = vec![
            ("b".to_owned(), Some(vec![0, 0xff])),
            ("a".to_owned(), None),
            ("b".to_owned(), Some(Vec::new())),
            ("größe \"\u{1}".to_owned(), Some((0..=u8::MAX).collect())),
        ];
        let stored = encode_headers(&headers[..3]);
        assert_eq!(stored, r#"[["b","00ff"],["a",null],["b",""]]"#);
        let stored = encode_headers(&headers);
        assert_eq!(decode_headers(stored.as_bytes()), Some(headers));
        assert_eq!(decode_headers(b"[]"), Some(Vec::new()));
    }

    #[test]
    fn other_text_is_not_decoded() {
        for stored in [
            "",
            "{",
            "{}",
            r#"[["a"]]"#,
            r#"[["a","xyz"]]"#,
            r#"[["a",1]]"#,
            "[\"a\"]",
        ] {
            assert_eq!(decode_headers(stored.as_bytes()), None, "{stored}");
        }
    }
}
