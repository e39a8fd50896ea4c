//! A request of the first person to mark an attempt as paid or as not paid, and whether it may still be confirmed.
//!
//! `operator_actions` is append-only, so a request has no state of its own. A later request replaces it, also one that
//! states the opposite, and it is no longer open when the return has another version, as after a confirmation.

use std::num::ParseIntError;

use serde::{Deserialize, Serialize};

use super::mark::Mark;
use crate::error::CtlError;
use crate::store::refunds::RequestRow;
use crate::text::{rfc3339, span};

/// A second person should not confirm what was looked up longer ago.
const VALID_FOR_SECS: f64 = 24.0 * 3600.0;

/// The last request for a return.
#[derive(Debug, Clone, Serialize)]
pub(super) struct MarkRequest {
    /// The number of its row in `operator_actions`, for `--request`.
    #[serde(rename = "request")]
    pub(super) id: i64,
    pub(super) mark: Mark,
    /// The attempt that it is about.
    pub(super) attempt: i32,
    pub(super) requested_by: i64,
    pub(super) evidence: String,
    pub(super) reason_code: Option<String>,
    pub(super) gateway_ref: Option<String>,
    requested_at: String,
    version: i32,
    #[serde(skip)]
    age_secs: f64,
}

/// A request's `operator_actions.details`, as far as a confirmation needs them.
#[derive(Debug, Deserialize)]
struct Details {
    version: i32,
    attempt: i32,
    reason_code: Option<String>,
    gateway_ref: Option<String>,
}

impl MarkRequest {
    pub(super) fn read(row: RequestRow) -> Result<Self, CtlError> {
        let unreadable = |source| CtlError::Refused {
            problem: format!("row {} of operator_actions cannot be read", row.id),
            source,
        };
        let details: Details =
            serde_json::from_str(&row.details).map_err(|error| unreadable(error.into()))?;
        let requested_by = row.requested_by.parse();
        let mut marks = Mark::ALL.into_iter();
        let mark = marks.find(|mark| mark.request_verb().as_str() == row.verb);
        Ok(Self {
            id: row.id,
            mark: mark.ok_or_else(|| unreadable("its verb is no request".into()))?,
            attempt: details.attempt,
            requested_by: requested_by.map_err(|error: ParseIntError| unreadable(error.into()))?,
            evidence: row.evidence,
            reason_code: details.reason_code,
            gateway_ref: details.gateway_ref,
            requested_at: rfc3339(row.created_at),
            version: details.version,
            age_secs: row.age_secs,
        })
    }

    /// Whether it may still be confirmed, or why not.
    pub(super) fn open(&self, version: i32) -> Result<(), String> {
        if self.version != version {
            return Err(format!(
                "request {} was made for version {} of the return, which has changed since (version {version})",
                self.id, self.version
            ));
        }
        if self.age_secs > VALID_FOR_SECS {
            return Err(format!(
                "request {} is {} old; a request is good for a day",
                self.id,
                span(self.age_secs)
            ));
        }
        Ok(())
    }

    /// Whether it states this, or why not.
    pub(super) fn states(&self, mark: Mark) -> Result<(), String> {
        if self.mark == mark {
            return Ok(());
        }
        Err(format!(
            "request {} states that attempt {} was {}: `{}` confirms that",
            self.id,
            self.attempt,
            self.mark.participle(),
            self.mark.confirm_command()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_good_for_a_day_one_version_and_what_it_states() {
        let request = |age_secs| MarkRequest {
            id: 9,
            mark: Mark::NotPaid,
            attempt: 1,
            requested_by: 7,
            evidence: "x".to_owned(),
            reason_code: None,
            gateway_ref: None,
            requested_at: String::new(),
            version: 4,
            age_secs,
        };
        assert_eq!(request(86_399.0).open(4), Ok(()));
        let late = request(86_401.0).open(4).expect_err("late");
        assert!(late.contains("24 h old"), "{late}");
        let changed = request(1.0).open(5).expect_err("changed");
        assert!(changed.contains("has changed since"), "{changed}");
        assert_eq!(request(1.0).states(Mark::NotPaid), Ok(()));
        let other = request(1.0).states(Mark::Paid).expect_err("the opposite");
        assert!(other.contains("was not paid"), "{other}");
    }
}
