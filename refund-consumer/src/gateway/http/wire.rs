//! The JSON of docs/GATEWAY.md. Unknown fields are ignored; known fields must be right.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use shared::domain::money::{Currency, Money};
use shared::domain::refund::{ParkReason, ProviderKey};

use serde_json::Value;

use crate::gateway::{Answer, CallFailed, ProviderRefund, RefundRequest, RefundStatus};

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

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Pending,
    Succeeded,
    Declined,
    /// Not in the contract, so it may have moved money.
    #[serde(untagged)]
    Other(String),
}

/// The refunds of one reference.
#[derive(Debug, Deserialize)]
pub(super) struct Found {
    refunds: Vec<Refund>,
}

/// The response is not the JSON of the contract.
fn bad_answer(words: String) -> CallFailed {
    CallFailed::NotUnderstood(Answer {
        code: "bad_answer",
        words,
    })
}

/// The codes in the body of an error, as providers commonly name them. Only what looks like a code is kept: a message may
/// hold personal data.
pub(super) fn codes(body: &[u8]) -> String {
    const MOST: usize = 3;
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return String::new();
    };
    let error = &body["error"];
    let places = [
        error,
        &error["code"],
        &error["type"],
        &error["param"],
        &body["code"],
        &body["type"],
        &body["param"],
    ];
    let mut found: Vec<&str> = places.into_iter().filter_map(Value::as_str).collect();
    found.retain_mut(|text| {
        // The type of an RFC 9457 problem is a URL.
        *text = text.rsplit('/').next().unwrap_or_default();
        is_code(text)
    });
    found.truncate(MOST);
    found.join(" ")
}

/// A long number could be that of a card or an account.
fn is_code(text: &str) -> bool {
    const LONGEST: usize = 64;
    const DIGITS: usize = 6;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=LONGEST).contains(&text.len())
        && text.bytes().all(plain)
        && text.bytes().filter(u8::is_ascii_digit).count() <= DIGITS
}

impl Refund {
    pub(super) fn read(body: &[u8]) -> Result<Self, CallFailed> {
        serde_json::from_slice(body).map_err(|_| bad_answer(codes(body)))
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
        let wrong = |what: &str| bad_answer(what.to_owned());
        let amount = Decimal::from_str_exact(&self.amount).map_err(|_| wrong("amount"))?;
        let currency = Currency::parse(&self.currency).map_err(|_| wrong("currency"))?;
        Ok(ProviderRefund {
            status: match self.status {
                Status::Pending => RefundStatus::Pending,
                Status::Succeeded => RefundStatus::Succeeded,
                Status::Declined => RefundStatus::Declined {
                    code: self.code.unwrap_or_default(),
                },
                Status::Other(status) if is_code(&status) => {
                    return Err(bad_answer(format!("status {status}")));
                }
                Status::Other(_) => return Err(wrong("status")),
            },
            gateway_ref: self.id,
            amount: Money::new(amount, currency),
        })
    }
}

impl Found {
    pub(super) fn read(body: &[u8]) -> Result<Self, CallFailed> {
        serde_json::from_slice(body).map_err(|_| bad_answer(codes(body)))
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
    fn p5_a_request_has_the_decimal_places_of_its_currency() {
        for (amount, currency, text) in [
            ("705.0000", "JPY", "705"),
            ("49.9000", "EUR", "49.90"),
            ("1.5000", "BHD", "1.500"),
        ] {
            let currency = Currency::parse(currency).expect("a code");
            let request = RefundRequest {
                key: ProviderKey("k".to_owned()),
                amount: Money::new(amount.parse().expect("a decimal"), currency),
                sent_before: 0,
            };
            let body = serde_json::to_value(NewRefund::of(&request)).expect("JSON");
            assert_eq!(body["amount"], text);
        }
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
            assert_eq!(parse(body), Err(bad_answer(String::new())), "{body}");
        }
    }

    #[test]
    fn p5_an_unknown_status_may_have_moved_money() {
        let other = OURS.replace("succeeded", "requires_action");
        let unclear = Err(bad_answer("status requires_action".to_owned()));
        assert_eq!(parse(&other), unclear);
        let several = found(&[other, OURS.replace("r1", "r2")]);
        assert_eq!(several, Err(CallFailed::Unusable(ParkReason::SeveralFound)));
        let free_text = OURS.replace("succeeded", "waits for Anna M.");
        assert_eq!(parse(&free_text), Err(bad_answer("status".to_owned())));
    }

    #[test]
    fn p13_of_an_error_only_codes_are_kept() {
        for (body, kept) in [
            (r#"{"error":"bad_request"}"#, "bad_request"),
            (
                r#"{"error":{"code":"parameter_invalid_integer","param":"amount","message":"Invalid integer: 705.00"}}"#,
                "parameter_invalid_integer amount",
            ),
            (
                r#"{"type":"https://pay.example/problems/bad-amount","title":"Bad amount","detail":"Anna M."}"#,
                "bad-amount",
            ),
            (r#"{"error":"No account for Anna M\u00fcller"}"#, ""),
            (r#"{"code":"4242424242424242"}"#, ""),
            ("[]", ""),
            ("<html>", ""),
            ("", ""),
        ] {
            assert_eq!(codes(body.as_bytes()), kept, "{body}");
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
