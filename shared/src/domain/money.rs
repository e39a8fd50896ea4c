//! Money is a decimal amount and a currency. Arithmetic is checked and never mixes currencies.

use std::fmt;

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

/// An ISO 4217 code: three upper-case letters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Currency([u8; 3]);

/// Why two amounts could not be combined, or a text is not a currency code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("amounts of different currencies: {0} and {1}")]
    CurrencyMismatch(Currency, Currency),
    #[error("amount out of range")]
    OutOfRange,
    #[error("not a currency code of three upper-case letters")]
    BadCurrency,
}

impl Money {
    pub fn new(amount: Decimal, currency: Currency) -> Self {
        Self { amount, currency }
    }

    /// The column `amount`, in the currency of the column `currency`.
    ///
    /// # Errors
    /// [`sqlx::Error::ColumnDecode`] if the currency is not a currency code; sqlx's own error for a missing column or
    /// another type.
    pub fn from_row(row: &MySqlRow, amount: &str) -> sqlx::Result<Self> {
        let currency: String = row.try_get("currency")?;
        let currency = Currency::parse(&currency).map_err(|error| unreadable("currency", error))?;
        Ok(Self::new(row.try_get(amount)?, currency))
    }

    /// The difference, which may be negative.
    ///
    /// # Errors
    /// Different currencies, or a result that does not fit.
    pub fn checked_sub(&self, other: &Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::CurrencyMismatch(
                self.currency.clone(),
                other.currency.clone(),
            ));
        }
        let amount = self
            .amount
            .checked_sub(other.amount)
            .ok_or(MoneyError::OutOfRange)?;
        Ok(Self::new(amount, self.currency.clone()))
    }

    pub fn is_positive(&self) -> bool {
        self.amount > Decimal::ZERO
    }

    /// The amount for people and for JSON: without trailing zeros, but with at least two fraction digits.
    pub fn decimal_text(&self) -> String {
        let mut amount = self.amount.normalize();
        if amount.scale() < 2 {
            amount.rescale(2);
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
    /// [`MoneyError::BadCurrency`] unless the code is three upper-case ASCII letters.
    pub fn parse(code: &str) -> Result<Self, MoneyError> {
        let bytes: [u8; 3] = code
            .as_bytes()
            .try_into()
            .map_err(|_| MoneyError::BadCurrency)?;
        if bytes.iter().all(u8::is_ascii_uppercase) {
            Ok(Self(bytes))
        } else {
            Err(MoneyError::BadCurrency)
        }
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked to be ASCII in parse")
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
    use super::*;

    fn money(amount: &str, currency: &str) -> Money {
        Money::new(
            amount.parse().expect("a decimal"),
            Currency::parse(currency).expect("a currency"),
        )
    }

    #[test]
    fn text_keeps_at_least_two_fraction_digits() {
        for (stored, text) in [
            ("49.9000", "49.90"),
            ("49.9950", "49.995"),
            ("500.0000", "500.00"),
            ("0.0001", "0.0001"),
        ] {
            assert_eq!(money(stored, "EUR").decimal_text(), text);
        }
    }

    #[test]
    fn currencies_do_not_mix() {
        assert!(money("1", "EUR").checked_sub(&money("1", "USD")).is_err());
        assert_eq!(
            money("3", "EUR").checked_sub(&money("1", "EUR")),
            Ok(money("2", "EUR"))
        );
    }

    #[test]
    fn a_currency_is_three_upper_case_letters() {
        for bad in ["", "EU", "eur", "EURO", "E1R", "€"] {
            assert_eq!(Currency::parse(bad), Err(MoneyError::BadCurrency), "{bad}");
        }
    }
}
