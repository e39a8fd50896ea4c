//! How long a token lives, on the command line.

use time::Duration;

const LONGEST: Duration = Duration::days(30);

/// Reads `30s`, `15m`, `1h`, `7d`.
pub(super) fn parse_ttl(text: &str) -> Result<Duration, String> {
    let unreadable = || "must be a number and a unit: 30s, 15m, 1h or 7d".to_owned();
    let unit_at = text.len().saturating_sub(1);
    let (number, unit) = text.split_at_checked(unit_at).ok_or_else(unreadable)?;
    let unit_secs = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(unreadable()),
    };
    // `parse` alone would accept "+1".
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(unreadable());
    }
    let number: u32 = number.parse().map_err(|_| unreadable())?;
    let ttl = Duration::seconds(i64::from(number) * unit_secs);
    if ttl.is_zero() || ttl > LONGEST {
        return Err("must be between 1s and 30d".to_owned());
    }
    Ok(ttl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_a_number_and_a_unit() {
        for (text, secs) in [
            ("30s", 30),
            ("15m", 900),
            ("1h", 3_600),
            ("7d", 604_800),
            ("30d", 2_592_000),
        ] {
            assert_eq!(parse_ttl(text), Ok(Duration::seconds(secs)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_ttl() {
        for text in [
            "",
            "s",
            "1",
            "h1",
            "-1h",
            "+1h",
            "1.5h",
            "1 h",
            "1w",
            "0s",
            "31d",
            "4294967296s",
            "1ä",
            "é",
        ] {
            assert!(parse_ttl(text).is_err(), "{text}");
        }
    }
}
