//! Above which amount a refund waits for an admin: a limit per currency, because 100 is much in euros and little in yen.

use std::collections::HashMap;
use std::str::FromStr;

use rust_decimal::Decimal;

use crate::domain::money::{Currency, Money};

/// A limit per currency. A currency without one is not known to be harmless, so its refunds are reviewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReviewLimits(HashMap<Currency, Decimal>);

impl ReviewLimits {
    pub(crate) fn are_exceeded_by(&self, refund: &Money) -> bool {
        let limit = self.0.get(&refund.currency);
        limit.is_none_or(|limit| refund.amount > *limit)
    }
}

/// The text is no list such as `EUR:100,JPY:15000`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLimits {
    #[error(
        "`{0}` has no currency: write it as EUR:{0}, and one for each further currency, as in EUR:100,JPY:15000"
    )]
    NoCurrency(Decimal),
    #[error("`{0}` is no limit of a currency, such as EUR:100")]
    NoLimit(String),
    #[error("`{0}` is no currency code of ISO 4217, such as EUR")]
    NoSuchCurrency(String),
    #[error("{0} has two limits")]
    Twice(Currency),
    #[error("{0} is no limit: it must be at least 0 and an amount that its currency can express")]
    Unusable(Money),
}

impl FromStr for ReviewLimits {
    type Err = BadLimits;

    fn from_str(list: &str) -> Result<Self, BadLimits> {
        let mut limits = HashMap::new();
        for item in list.split(',').map(str::trim) {
            let Money { amount, currency } = limit(item)?;
            if limits.insert(currency.clone(), amount).is_some() {
                return Err(BadLimits::Twice(currency));
            }
        }
        Ok(Self(limits))
    }
}

fn limit(item: &str) -> Result<Money, BadLimits> {
    let Some((code, amount)) = item.split_once(':') else {
        let bare = Decimal::from_str_exact(item);
        return Err(bare.map_or_else(
            |_| BadLimits::NoLimit(item.to_owned()),
            BadLimits::NoCurrency,
        ));
    };
    let currency = Currency::parse(code).map_err(|_| BadLimits::NoSuchCurrency(code.to_owned()))?;
    let amount =
        Decimal::from_str_exact(amount).map_err(|_| BadLimits::NoLimit(item.to_owned()))?;
    let limit = Money::new(amount, currency);
    if limit.is_payable() && !amount.is_sign_negative() {
        Ok(limit)
    } else {
        Err(BadLimits::Unusable(limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refund(amount: &str, currency: &str) -> Money {
        Money::new(
            amount.parse().expect("a decimal"),
            Currency::parse(currency).expect("a code"),
        )
    }

    #[test]
    fn each_currency_has_its_own_limit_and_one_without_is_reviewed() {
        let limits: ReviewLimits = "EUR:100, JPY:15000,USD:0".parse().expect("limits");
        for (amount, currency, reviewed) in [
            ("100", "EUR", false),
            ("100.01", "EUR", true),
            ("15000", "JPY", false),
            ("15001", "JPY", true),
            ("0.01", "USD", true),
            ("0.01", "CHF", true),
        ] {
            let refund = refund(amount, currency);
            assert_eq!(limits.are_exceeded_by(&refund), reviewed, "{refund}");
        }
    }

    #[test]
    fn a_mistake_is_named() {
        for (text, error) in [
            (
                "100",
                "`100` has no currency: write it as EUR:100, and one for each further currency, as in EUR:100,JPY:15000",
            ),
            ("", "`` is no limit of a currency, such as EUR:100"),
            ("EUR:100,", "`` is no limit of a currency, such as EUR:100"),
            ("EUR", "`EUR` is no limit of a currency, such as EUR:100"),
            ("EUR:", "`EUR:` is no limit of a currency, such as EUR:100"),
            (
                "EUR:1e3",
                "`EUR:1e3` is no limit of a currency, such as EUR:100",
            ),
            (
                "eur:100",
                "`eur` is no currency code of ISO 4217, such as EUR",
            ),
            ("EUR:100,EUR:200", "EUR has two limits"),
            (
                "EUR:-1",
                "-1.00 EUR is no limit: it must be at least 0 and an amount that its currency can express",
            ),
            (
                "JPY:0.5",
                "0.5 JPY is no limit: it must be at least 0 and an amount that its currency can express",
            ),
        ] {
            let refused = text
                .parse::<ReviewLimits>()
                .map_err(|error| error.to_string());
            assert_eq!(refused, Err(error.to_owned()), "{text}");
        }
    }
}
