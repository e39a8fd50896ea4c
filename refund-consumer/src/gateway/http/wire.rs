//! The JSON of docs/GATEWAY.md. Unknown fields are ignored; known fields must be right.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use shared::domain::money::{Currency, Money};
use shared::domain::refund::{ParkReason, ProviderKey};

use crate::gateway::{CallFailed, ProviderRefund, RefundRequest, RefundStatus};

/// The request for a refund.
#[derive(Debug, Serialize)]
pub(super) struct NewRefund<'a> {
    reference: &'a str,
    amount: String,
    currency: &'a str,
}

impl<'a> NewRefund<'a> {
    pub(super) fn of(request: &'a RefundRequest) -> Self {
        Self {
            reference: &request.key.0,
            amount: request.amount.decimal_text(),
            currency: request.amount.currency.as_str(),
        }
    }
}

/// A refund in a response.
#[derive(Debug, Deserialize)]
pub(super) struct Refund {
    id: String,
    reference: String,
    status: Status,
    /// Why it was declined.
    code: Option<String>,
    /// Decimal text.
    amount: String,
    currency: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Pending,
    Succeeded,
    Declined,
}

/// The refunds of one reference.
#[derive(Debug, Deserialize)]
pub(super) struct Found {
    refunds: Vec<Refund>,
}

/// The response is not the JSON of the contract.
const BAD_ANSWER: CallFailed = CallFailed::Unknown("bad_answer");

impl Refund {
    pub(super) fn read(body: &[u8]) -> Result<Self, CallFailed> {
        serde_json::from_slice(body).map_err(|_| BAD_ANSWER)
    }

    /// # Errors
    /// It is about another refund.
    pub(super) fn refund_of(self, key: &ProviderKey) -> Result<ProviderRefund, CallFailed> {
        if self.reference == key.0 {
            self.into_refund()
        } else {
            Err(CallFailed::Unusable(ParkReason::MismatchedReference))
        }
    }

    /// # Errors
    /// It is about another refund.
    pub(super) fn refund_named(
        self,
        gateway_ref: &str,
        key: &ProviderKey,
    ) -> Result<ProviderRefund, CallFailed> {
        if self.id == gateway_ref {
            self.refund_of(key)
        } else {
            Err(CallFailed::Unusable(ParkReason::MismatchedReference))
        }
    }

    fn into_refund(self) -> Result<ProviderRefund, CallFailed> {
        let amount = Decimal::from_str_exact(&self.amount).map_err(|_| BAD_ANSWER)?;
        let currency = Currency::parse(&self.currency).map_err(|_| BAD_ANSWER)?;
        Ok(ProviderRefund {
            status: match self.status {
                Status::Pending => RefundStatus::Pending,
                Status::Succeeded => RefundStatus::Succeeded,
                Status::Declined => RefundStatus::Declined {
                    code: self.code.unwrap_or_default(),
                },
            },
            gateway_ref: self.id,
            amount: Money::new(amount, currency),
        })
    }
}

impl Found {
    pub(super) fn read(body: &[u8]) -> Result<Self, CallFailed> {
        serde_json::from_slice(body).map_err(|_| BAD_ANSWER)
    }

    /// The one refund that may have moved money; without one, the last declined refund.
    ///
    /// # Errors
    /// One of them is not about `key`, or several may have moved money: only a person can find out.
    pub(super) fn refund_of(self, key: &ProviderKey) -> Result<Option<ProviderRefund>, CallFailed> {
        let (declined, mut paying): (Vec<_>, Vec<_>) = self
            .refunds
            .into_iter()
            .partition(|refund| refund.status == Status::Declined);
        if paying.len() > 1 {
            return Err(CallFailed::Unusable(ParkReason::SeveralFound));
        }
        let refund = paying.pop().or_else(|| declined.into_iter().last());
        refund.map(|refund| refund.refund_of(key)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str =
        r#"{"id":"r1","reference":"k","status":"succeeded","amount":"49.90","currency":"EUR"}"#;

    fn parse(body: &str) -> Result<ProviderRefund, CallFailed> {
        Refund::read(body.as_bytes())?.refund_of(&ProviderKey("k".to_owned()))
    }

    fn found(refunds: &[String]) -> Result<Option<ProviderRefund>, CallFailed> {
        let body = format!(r#"{{"refunds":[{}]}}"#, refunds.join(","));
        Found::read(body.as_bytes())?.refund_of(&ProviderKey("k".to_owned()))
    }

    #[test]
    fn a_response_is_read_and_unknown_fields_are_ignored() {
        let read = parse(&OURS.replace("{", r#"{"new":{"a":1},"#)).expect("ours");
        assert_eq!(read.gateway_ref, "r1");
        assert_eq!(read.amount.decimal_text(), "49.90");
        assert_eq!(read.status, RefundStatus::Succeeded);
    }

    #[test]
    fn p5_a_body_that_deviates_from_the_contract_is_no_response() {
        for (from, to) in [
            (r#""k""#, r#""other""#),
            ("succeeded", "paid"),
            (r#""49.90""#, "49.90"),
            ("49.90", "4.99e1"),
            ("49.90", "NaN"),
            ("EUR", "eur"),
            (r#""id":"r1","#, ""),
            (r#""id":"r1""#, r#""id":null"#),
            (r#"{"id""#, r#"{"status":"declined","id""#),
            ("}", "}}"),
            ("}", ""),
        ] {
            let body = OURS.replacen(from, to, 1);
            assert_ne!(body, OURS, "{from}");
            assert!(parse(&body).is_err(), "{body}");
        }
        for body in ["", "null", "[]", "<html>", "\u{feff}{}"] {
            assert_eq!(parse(body), Err(BAD_ANSWER), "{body}");
        }
    }

    #[test]
    fn p5_of_several_refunds_only_one_may_have_paid() {
        let declined = OURS.replace("succeeded", "declined").replace("r1", "r0");
        let ours = OURS.to_owned();
        assert_eq!(found(&[]), Ok(None));
        let one = found(&[declined.clone(), ours.clone()])
            .expect("one")
            .expect("one");
        assert_eq!(one.gateway_ref, "r1");
        let none = found(&[declined]).expect("one").expect("one");
        assert!(matches!(none.status, RefundStatus::Declined { .. }));
        let two = found(&[ours.clone(), ours.replace("r1", "r2")]);
        assert_eq!(two, Err(CallFailed::Unusable(ParkReason::SeveralFound)));
    }
}
