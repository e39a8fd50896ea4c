//! A request to mark a refund as paid, and whether it may still be confirmed.
//!
//! `operator_actions` is append-only, so a request has no state of its own. A later request replaces it, and it is no
//! longer open when the return has another version, as after a confirmation.

use std::num::ParseIntError;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::domain::refund::MarkPaid;

use super::refund::Refund;
use crate::error::CtlError;
use crate::store::refunds::RequestRow;
use crate::text::{rfc3339, span};

/// A second person should not confirm a payment that was looked up longer ago.
const VALID_FOR_SECS: f64 = 24.0 * 3600.0;

/// The last request for a return.
#[derive(Debug, Clone, Serialize)]
pub(super) struct MarkPaidRequest {
    /// The number of its row in `operator_actions`, for `--request`.
    #[serde(rename = "request")]
    pub(super) id: i64,
    /// The attempt that paid.
    pub(super) attempt: i32,
    pub(super) requested_by: i64,
    pub(super) evidence: String,
    pub(super) gateway_ref: Option<String>,
    requested_at: String,
    version: i32,
    #[serde(skip)]
    age_secs: f64,
}

/// A request's `operator_actions.details`.
#[derive(Debug, Deserialize)]
struct Details {
    version: i32,
    attempt: i32,
    gateway_ref: Option<String>,
}

/// The details of a request made now.
pub(super) fn details(refund: &Refund, paid: &MarkPaid<'_>, gateway_ref: Option<&str>) -> Value {
    json!({
        "version": refund.version,
        "status": refund.state.status,
        "attempt": paid.by.id.number,
        "amount": paid.by.amount.decimal_text(),
        "currency": paid.by.amount.currency,
        "gateway_ref": gateway_ref,
    })
}

impl MarkPaidRequest {
    pub(super) fn read(row: RequestRow) -> Result<Self, CtlError> {
        let unreadable = |source| CtlError::Refused {
            problem: format!("row {} of operator_actions cannot be read", row.id),
            source,
        };
        let details: Details =
            serde_json::from_str(&row.details).map_err(|error| unreadable(error.into()))?;
        let requested_by = row.requested_by.parse();
        Ok(Self {
            id: row.id,
            attempt: details.attempt,
            requested_by: requested_by.map_err(|error: ParseIntError| unreadable(error.into()))?,
            evidence: row.evidence,
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_good_for_a_day_and_one_version() {
        let request = |age_secs| MarkPaidRequest {
            id: 9,
            attempt: 1,
            requested_by: 7,
            evidence: "x".to_owned(),
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
    }
}
