//! Who acts, and why: asked of every command that changes something.

use crate::store::operate::Because;

/// The width of `operator_actions.actor_id`.
const LONGEST_NAME: usize = 64;
const LONGEST_REASON: usize = 2_000;

// No doc comment: see `Common`.
#[derive(Debug, clap::Args)]
pub(super) struct OperatorArgs {
    /// Your name, as an auditor would look you up: at most 64 ASCII characters. There is no default, because the
    /// system's user name is that of a container or a shared account. The MySQL account and the host it came from are
    /// recorded beside it.
    #[arg(long, env = "OPERATOR", value_name = "NAME", value_parser = parse_name)]
    by: String,

    /// Why, for whoever reads it a year from now: an incident, a ticket, a sentence.
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    reason: String,
}

impl OperatorArgs {
    pub(super) fn because(&self) -> Because<'_> {
        Because {
            by: &self.by,
            reason: &self.reason,
        }
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    let name = text.trim();
    let fits = (1..=LONGEST_NAME).contains(&name.len());
    if fits
        && name
            .bytes()
            .all(|byte| byte == b' ' || byte.is_ascii_graphic())
    {
        Ok(name.to_owned())
    } else {
        Err(format!(
            "must be 1 to {LONGEST_NAME} printable ASCII characters"
        ))
    }
}

fn parse_reason(text: &str) -> Result<String, String> {
    let reason = text.trim();
    if (1..=LONGEST_REASON).contains(&reason.chars().count()) {
        Ok(reason.to_owned())
    } else {
        Err(format!("must be 1 to {LONGEST_REASON} characters"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_its_column_and_is_not_blank() {
        assert_eq!(parse_name(" j.doe@shop "), Ok("j.doe@shop".to_owned()));
        for text in ["", "  ", "jörg", "a\nb", &"x".repeat(65)] {
            assert!(parse_name(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn p3_a_blank_reason_is_none() {
        assert_eq!(
            parse_reason(" INC-7: größer "),
            Ok("INC-7: größer".to_owned())
        );
        for text in ["", " \t\n", &"x".repeat(2_001)] {
            assert!(parse_reason(text).is_err(), "{text:?}");
        }
    }
}
