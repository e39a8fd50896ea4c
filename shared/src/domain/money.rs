//! Money is a decimal amount and a currency. How many decimal places a currency has is in ISO 4217.
//!
//! A [`Money`] that was read may be one that its currency cannot express: the shop writes its orders, and older versions
//! filed what they found there. So that such a row can be shown and refused, it is read as it is, and
//! [`Money::is_payable`] is asked before an amount is promised or sent to a provider.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Serialize, Serializer};
use sqlx::Row;
use sqlx::mysql::MySqlRow;

use crate::domain::row::unreadable;

/// An amount as stored in `DECIMAL(19,4)`: at most four fraction digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Money {
    pub amount: Decimal,
    pub currency: Currency,
}

/// A currency code. One that was parsed is a currency of ISO 4217; one that was read from a row may be any three
/// characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Currency([u8; CODE_LEN]);

/// `CHAR(3)`; a shorter code is filled with spaces, as MySQL does.
const CODE_LEN: usize = 3;

/// The text is not a currency that amounts of money can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a currency code of ISO 4217, such as EUR")]
pub struct BadCurrency;

impl Money {
    pub fn new(amount: Decimal, currency: Currency) -> Self {
        Self { amount, currency }
    }

    /// The column `amount`, in the currency of the column `currency`, whether or not it is payable.
    ///
    /// # Errors
    /// sqlx's own error for a missing column or another type.
    pub fn from_row(row: &MySqlRow, amount: &str) -> sqlx::Result<Self> {
        Ok(Self::new(row.try_get(amount)?, Currency::from_row(row)?))
    }

    /// Whether a provider can be asked for it: it is a whole number of the currency's minor units.
    pub fn is_payable(&self) -> bool {
        let digits = self.currency.minor_digits();
        digits.is_some_and(|digits| self.amount.normalize().scale() <= digits)
    }

    pub fn is_positive(&self) -> bool {
        self.amount > Decimal::ZERO
    }

    /// The amount for people, for JSON and for the provider: with the decimal places of the currency (`49.90` EUR, `705` JPY,
    /// `1.500` BHD). An amount that is not payable keeps every digit.
    pub fn decimal_text(&self) -> String {
        const USUAL: u32 = 2;
        let digits = self.currency.minor_digits().unwrap_or(USUAL);
        let mut amount = self.amount.normalize();
        if amount.scale() < digits {
            amount.rescale(digits);
        }
        amount.to_string()
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.decimal_text(), self.currency)
    }
}

impl Currency {
    /// # Errors
    /// [`BadCurrency`] unless ISO 4217 has the code, in upper-case letters, with a minor unit.
    pub fn parse(code: &str) -> Result<Self, BadCurrency> {
        let currency = Self::as_stored(code)?;
        currency.minor_digits().map(|_| currency).ok_or(BadCurrency)
    }

    /// The column `currency`, whether or not ISO 4217 has the code.
    ///
    /// # Errors
    /// sqlx's own error for a missing column or another type.
    pub fn from_row(row: &MySqlRow) -> sqlx::Result<Self> {
        let code: String = row.try_get("currency")?;
        Self::as_stored(&code).map_err(|error| unreadable("currency", error))
    }

    fn as_stored(code: &str) -> Result<Self, BadCurrency> {
        if code.len() > CODE_LEN || !code.is_ascii() {
            return Err(BadCurrency);
        }
        let mut bytes = [b' '; CODE_LEN];
        bytes[..code.len()].copy_from_slice(code.as_bytes());
        Ok(Self(bytes))
    }

    pub fn as_str(&self) -> &str {
        let code = std::str::from_utf8(&self.0).expect("checked to be ASCII");
        code.trim_end_matches(' ')
    }

    /// The decimal places of its amounts, from list one of ISO 4217; `None` for a code that is none of a currency, and for
    /// one without a minor unit, such as gold.
    pub fn minor_digits(&self) -> Option<u32> {
        let known = iso_currency::Currency::from_code(self.as_str())?;
        known.exponent().map(u32::from)
    }
}

impl FromStr for Currency {
    type Err = BadCurrency;

    fn from_str(code: &str) -> Result<Self, BadCurrency> {
        Self::parse(code)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn stored(amount: &str, currency: &str) -> Money {
        Money::new(
            amount.parse().expect("a decimal"),
            Currency::as_stored(currency).expect("three characters"),
        )
    }

    #[test]
    fn p5_an_amount_has_the_decimal_places_of_its_currency() {
        for (amount, currency, text) in [
            ("705.0000", "JPY", "705"),
            ("700.0000", "JPY", "700"),
            ("49.9000", "EUR", "49.90"),
            ("500.0000", "EUR", "500.00"),
            ("1.5000", "BHD", "1.500"),
            ("0.0001", "CLF", "0.0001"),
            ("12.0000", "CLF", "12.0000"),
            ("0.0000", "EUR", "0.00"),
        ] {
            let money = stored(amount, currency);
            assert_eq!(money.decimal_text(), text, "{amount} {currency}");
            assert!(money.is_payable(), "{amount} {currency}");
        }
    }

    /// Shown with every digit, and never rounded.
    #[test]
    fn p5_what_a_currency_cannot_express_is_not_payable() {
        for (amount, currency, text) in [
            ("705.5000", "JPY", "705.5"),
            ("49.9950", "EUR", "49.995"),
            ("0.0001", "BHD", "0.0001"),
            ("49.9000", "eur", "49.90"),
            ("49.9000", "", "49.90"),
            ("49.9000", "QQQ", "49.90"),
            ("49.9000", "XAU", "49.90"),
        ] {
            let money = stored(amount, currency);
            assert_eq!(money.decimal_text(), text, "{amount} {currency}");
            assert!(!money.is_payable(), "{amount} {currency}");
        }
    }

    #[test]
    fn a_currency_is_a_code_of_iso_4217() {
        for good in ["EUR", "JPY", "BHD", "XCG"] {
            assert_eq!(
                Currency::parse(good).map(|code| code.to_string()),
                Ok(good.to_owned())
            );
        }
        for bad in [
            "", "EU", "eur", "EURO", "E1R", "€", " EU", "EU ", "QQQ", "XXX", "XAU",
        ] {
            assert_eq!(Currency::parse(bad), Err(BadCurrency), "{bad}");
        }
    }

    /// The exceptions of list one of 1 January 2026; every other currency has two places.
    #[test]
    fn the_decimal_places_are_those_of_iso_4217() {
        let mut by_places = BTreeMap::<u32, Vec<String>>::new();
        for number in 0..26_u32.pow(3) {
            let letter =
                |place: u32| char::from_u32(u32::from('A') + number / 26_u32.pow(place) % 26);
            let code: String = [2, 1, 0].into_iter().filter_map(letter).collect();
            if let Ok(currency) = Currency::parse(&code) {
                let places = currency.minor_digits().expect("it was parsed");
                by_places.entry(places).or_default().push(code);
            }
        }
        let with_two = by_places.remove(&2).expect("most have two");
        assert!(with_two.len() > 130, "{with_two:?}");
        let exceptions = by_places
            .into_iter()
            .map(|(places, codes)| (places, codes.join(" ")));
        let expected = [
            (
                0,
                "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
            ),
            (3, "BHD IQD JOD KWD LYD OMR TND"),
            (4, "CLF UYW"),
        ];
        assert_eq!(
            exceptions.collect::<Vec<_>>(),
            expected.map(|(places, codes)| (places, codes.to_owned()))
        );
    }
}
