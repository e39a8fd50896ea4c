//! Whether an order may be returned. The result lists every violation, not only the first.
//!
//! The rules are pure. The api applies them when a return is filed. The refund consumer applies them again when it claims
//! the return, with the filing time as `now` and without counting that return.

use serde::Serialize;
use sqlx::mysql::MySqlRow;
use sqlx::{FromRow, Row};
use strum::IntoStaticStr;
use time::{Duration, OffsetDateTime};

use crate::domain::ids::{CustomerId, OrderId};
use crate::domain::money::Money;

/// The part of an order that returns need.
#[derive(Debug, Clone)]
pub struct OrderFacts {
    pub id: OrderId,
    pub customer_id: CustomerId,
    pub total: Money,
    pub refunded_amount: Money,
    pub status: String,
    pub delivered_at: Option<OffsetDateTime>,
}

impl FromRow<'_, MySqlRow> for OrderFacts {
    fn from_row(row: &MySqlRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            customer_id: row.try_get("customer_id")?,
            total: Money::from_row(row, "total")?,
            refunded_amount: Money::from_row(row, "refunded_amount")?,
            status: row.try_get("status")?,
            delivered_at: row.try_get("delivered_at")?,
        })
    }
}

impl OrderFacts {
    /// Whether the amount that is still refundable is enough for `amount`.
    pub fn covers(&self, amount: &Money) -> bool {
        refundable(self)
            .is_some_and(|left| left.currency == amount.currency && left.amount >= amount.amount)
    }
}

/// The settings of the policy.
#[derive(Debug, Clone, clap::Args)]
pub struct PolicyArgs {
    /// Days after delivery within which an order may be returned. Too low refuses honest customers; too high accepts
    /// very old orders.
    #[arg(long, env = "RETURN_WINDOW_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub return_window_days: u16,

    /// Refunds above this amount, in the currency of the order, wait for an approval by an admin. Unset: no refund waits.
    #[arg(long, env = "REVIEW_ABOVE_AMOUNT")]
    pub review_above_amount: Option<rust_decimal::Decimal>,
}

/// The version of the rules. It is stored with the return and in the event of an automatic approval.
pub const POLICY_VERSION: &str = "2026-11";

/// One reason why an order may not be returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, IntoStaticStr)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Violation {
    OrderNotDelivered,
    WindowExpired,
    AlreadyRefunded,
    TotalNotPositive,
    AlreadyOpen,
}

impl Violation {
    pub fn code(self) -> &'static str {
        self.into()
    }
}

/// Every reason against returning `order` at `now`; empty means eligible.
///
/// `open` says whether another return of this order is open.
pub fn violations(
    order: &OrderFacts,
    open: bool,
    now: OffsetDateTime,
    policy: &PolicyArgs,
) -> Vec<Violation> {
    let window = Duration::days(i64::from(policy.return_window_days));
    let delivered = order.status == "delivered";
    let expired = order.delivered_at.is_some_and(|at| now - at > window);
    let refundable = refundable(order);
    let rules = [
        (
            !delivered || order.delivered_at.is_none(),
            Violation::OrderNotDelivered,
        ),
        (expired, Violation::WindowExpired),
        (!order.total.is_positive(), Violation::TotalNotPositive),
        (
            order.total.is_positive() && !refundable.is_some_and(|money| money.is_positive()),
            Violation::AlreadyRefunded,
        ),
        (open, Violation::AlreadyOpen),
    ];
    rules
        .into_iter()
        .filter_map(|(violated, violation)| violated.then_some(violation))
        .collect()
}

/// The amount that can still be refunded: the total minus the amount that was already refunded.
pub fn refundable(order: &OrderFacts) -> Option<Money> {
    order.total.checked_sub(&order.refunded_amount).ok()
}

impl PolicyArgs {
    /// Whether an admin must approve a refund of this amount.
    pub fn needs_review(&self, refund: &Money) -> bool {
        self.review_above_amount
            .is_some_and(|limit| refund.amount > limit)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::domain::money::Currency;

    const NOW: OffsetDateTime = datetime!(2026-11-23 12:00 UTC);

    fn policy() -> PolicyArgs {
        PolicyArgs {
            return_window_days: 30,
            review_above_amount: Some(100.into()),
        }
    }

    fn euro(amount: i64) -> Money {
        Money::new(amount.into(), Currency::parse("EUR").expect("a code"))
    }

    fn order() -> OrderFacts {
        OrderFacts {
            id: OrderId(1),
            customer_id: CustomerId(42),
            total: euro(50),
            refunded_amount: euro(0),
            status: "delivered".to_owned(),
            delivered_at: Some(NOW - Duration::days(3)),
        }
    }

    #[test]
    fn a_delivered_order_within_the_window_is_eligible() {
        assert_eq!(violations(&order(), false, NOW, &policy()), []);
    }

    #[test]
    fn the_last_moment_of_the_window_still_counts() {
        let mut order = order();
        order.delivered_at = Some(NOW - Duration::days(30));
        assert_eq!(violations(&order, false, NOW, &policy()), []);
        order.delivered_at = Some(NOW - Duration::days(30) - Duration::microseconds(1));
        assert_eq!(
            violations(&order, false, NOW, &policy()),
            [Violation::WindowExpired]
        );
    }

    #[test]
    fn every_violation_is_listed() {
        let mut order = order();
        order.status = "shipped".to_owned();
        order.delivered_at = Some(NOW - Duration::days(40));
        order.refunded_amount = euro(50);
        assert_eq!(
            violations(&order, true, NOW, &policy()),
            [
                Violation::OrderNotDelivered,
                Violation::WindowExpired,
                Violation::AlreadyRefunded,
                Violation::AlreadyOpen
            ]
        );
    }

    #[test]
    fn the_refundable_amount_is_limited_and_has_one_currency() {
        let mut order = order();
        order.refunded_amount = euro(1);
        assert!(order.covers(&euro(49)));
        assert!(!order.covers(&euro(50)));
        let dollars = Money::new(1.into(), Currency::parse("USD").expect("a code"));
        assert!(!order.covers(&dollars));
    }

    #[test]
    fn a_free_order_cannot_be_refunded() {
        let mut order = order();
        order.total = euro(0);
        assert_eq!(
            violations(&order, false, NOW, &policy()),
            [Violation::TotalNotPositive]
        );
    }

    #[test]
    fn only_amounts_above_the_limit_are_reviewed() {
        assert!(!policy().needs_review(&euro(100)));
        assert!(policy().needs_review(&euro(101)));
    }
}
