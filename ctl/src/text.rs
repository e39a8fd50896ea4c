//! Values as a person at a terminal reads them, and as it is safe to show them there.

use std::fmt::Display;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// `1 row`, `2 rows`.
pub(crate) fn counted<N: Display + PartialEq + From<u8>>(count: N, noun: &str) -> String {
    if count == N::from(1) {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

/// Text from the database as it may go to a terminal. Control characters are escaped, because a terminal obeys them, and
/// so are invisible characters that hide or reorder the text beside them.
pub(crate) fn printable(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, c| {
        if c.is_control() || is_format(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
        escaped
    })
}

/// Unicode's line and paragraph separators, and its format characters (general category Cf, Unicode 16): soft hyphens,
/// zero-width and bidirectional marks, byte order marks, tags.
fn is_format(c: char) -> bool {
    matches!(
        u32::from(c),
        0xad | 0x600..=0x605
            | 0x61c
            | 0x6dd
            | 0x70f
            | 0x890..=0x891
            | 0x8e2
            | 0x180e
            | 0x200b..=0x200f
            | 0x2028..=0x202e
            | 0x2060..=0x206f
            | 0xfeff
            | 0xfff9..=0xfffb
            | 0x110bd
            | 0x110cd
            | 0x13430..=0x1343f
            | 0x1bca0..=0x1bca3
            | 0x1d173..=0x1d17a
            | 0xe0001
            | 0xe0020..=0xe007f
    )
}

/// A length of time for people, in its largest sensible unit.
pub(crate) fn span(secs: f64) -> String {
    match secs {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

/// The value, or a dash in place of none.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

pub(crate) fn rfc3339(at: OffsetDateTime) -> String {
    at.format(&Rfc3339)
        .expect("the database holds years 1000 to 9999")
}

/// An instant of [`rfc3339`] to the second, for tables.
pub(crate) fn to_second(rfc3339: &str) -> String {
    match rfc3339.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => rfc3339.to_owned(),
    }
}

/// Bytes whole, as text where they are UTF-8, else in hexadecimal digits.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shown {
    Text(String),
    Hex(String),
}

impl Shown {
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Hex(hex::encode(error.as_bytes())),
        }
    }

    pub(crate) fn line(&self) -> String {
        match self {
            Self::Text(text) => printable(text),
            Self::Hex(hex) => format!("0x{hex}"),
        }
    }
}

/// The beginning of a payload, and how long all of it is.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Payload {
    payload_bytes: i64,
    #[serde(flatten)]
    beginning: Beginning,
}

/// The part of a payload that is shown: as text where it is UTF-8, else in hexadecimal digits.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Beginning {
    payload_cut: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_hex: Option<String>,
}

impl Payload {
    /// `shown` is the beginning of a payload of `payload_bytes`.
    pub(crate) fn of(shown: Vec<u8>, payload_bytes: i64) -> Self {
        Self {
            payload_bytes,
            beginning: Beginning::of(shown, payload_bytes),
        }
    }

    pub(crate) fn line(&self) -> String {
        self.beginning.line(self.payload_bytes)
    }
}

impl Beginning {
    pub(crate) fn of(shown: Vec<u8>, payload_bytes: i64) -> Self {
        let payload_cut = i64::try_from(shown.len()) != Ok(payload_bytes);
        let (text, hex) = match String::from_utf8(shown) {
            Ok(text) => (Some(text), None),
            // The cut may be in the middle of a character.
            Err(error) if payload_cut && error.utf8_error().error_len().is_none() => {
                let valid = error.utf8_error().valid_up_to();
                let shown = &error.as_bytes()[..valid];
                (Some(String::from_utf8_lossy(shown).into_owned()), None)
            }
            Err(error) => (None, Some(hex::encode(error.as_bytes()))),
        };
        Self {
            payload_cut,
            payload_text: text,
            payload_hex: hex,
        }
    }

    pub(crate) fn line(&self, payload_bytes: i64) -> String {
        let shown = match (&self.payload_text, &self.payload_hex) {
            (Some(text), _) => printable(text),
            (None, Some(hex)) => format!("0x{hex}"),
            (None, None) => String::new(),
        };
        let cut = if self.payload_cut { " …" } else { "" };
        format!("payload ({payload_bytes} bytes): {shown}{cut}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_control_hide_or_reorder_are_escaped() {
        assert_eq!(
            printable("größer 49,90 € 木 e\u{301}"),
            "größer 49,90 € 木 e\u{301}"
        );
        for (text, escaped) in [
            ("a\u{1b}[2Jb\n\t\u{9b}", r"a\u{1b}[2Jb\n\t\u{9b}"),
            ("re_\u{202e}3f9", r"re_\u{202e}3f9"),
            (
                "\u{2066}x\u{2069}\u{200b}\u{feff}\u{ad}",
                r"\u{2066}x\u{2069}\u{200b}\u{feff}\u{ad}",
            ),
            ("\u{2028}\u{e0041}", r"\u{2028}\u{e0041}"),
        ] {
            assert_eq!(printable(text), escaped);
        }
    }

    #[test]
    fn spans_are_shown_in_their_largest_unit() {
        let shown = [0.04, 9.9, 119.0, 125.0, 7_300.0, 200_000.0].map(span);
        assert_eq!(shown, ["0.0 s", "9.9 s", "119 s", "2 min", "2 h", "2 d"]);
    }

    #[test]
    fn an_instant_is_cut_to_the_second() {
        for (text, shown) in [
            ("2026-11-23T02:13:20.123Z", "2026-11-23T02:13:20Z"),
            ("2026-11-23T02:13:20Z", "2026-11-23T02:13:20Z"),
        ] {
            assert_eq!(to_second(text), shown);
        }
    }

    #[test]
    fn counts_agree_with_their_noun() {
        assert_eq!(
            [0_i64, 1, 2].map(|n| counted(n, "row")),
            ["0 rows", "1 row", "2 rows"]
        );
        assert_eq!(counted(1_usize, "order"), "1 order");
    }

    #[test]
    fn a_payload_is_text_if_it_is_utf_8_also_when_cut_in_the_middle_of_a_character() {
        let whole = Beginning::of("größer".into(), 8);
        assert_eq!(whole.payload_text.as_deref(), Some("größer"));
        let cut = Beginning::of("grö".as_bytes()[..3].to_vec(), 8);
        assert_eq!(
            (cut.payload_text.as_deref(), cut.payload_cut),
            (Some("gr"), true)
        );
        let binary = Beginning::of(vec![0xff, 0x01], 2);
        assert_eq!(
            (binary.payload_text, binary.payload_hex.as_deref()),
            (None, Some("ff01"))
        );
    }

    #[test]
    fn a_payload_sends_no_commands_to_the_terminal() {
        let line = Payload::of(b"{\"a\":\"\x1b[2J\"}".to_vec(), 12).line();
        assert_eq!(line, "payload (12 bytes): {\"a\":\"\\u{1b}[2J\"}");
    }
}
