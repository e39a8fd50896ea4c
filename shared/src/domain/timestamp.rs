//! How an instant is written: in hashes, messages and responses alike.

use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

/// RFC 3339 in UTC with exactly six fraction digits, which is what `DATETIME(6)` holds.
pub fn timestamp_text(at: OffsetDateTime) -> String {
    at.to_offset(UtcOffset::UTC)
        .format(format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z"
        ))
        .expect("every component is present in an OffsetDateTime")
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_text_has_six_fraction_digits_in_utc() {
        for (at, text) in [
            (
                datetime!(2026-11-23 02:15:00 UTC),
                "2026-11-23T02:15:00.000000Z",
            ),
            (
                datetime!(2026-11-23 02:15:00.120 +01:00),
                "2026-11-23T01:15:00.120000Z",
            ),
        ] {
            assert_eq!(timestamp_text(at), text);
        }
    }
}
