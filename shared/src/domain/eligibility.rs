//! Whether an order may be returned. The result lists every violation, not only the first.
//!
//! The rules are pure. The api applies all of them when a return is filed, and what was decided then stands: a return that
//! was accepted with 201 is not rejected because its window is judged by another setting, or because the shop has moved
//! the order on. Only the money is checked again, by the refund consumer when it claims the return and before it sends what
//! has waited, because the shop may have refunded the order meanwhile.

use rust_decimal::Decimal;
use serde::Serialize;
use sqlx::mysql::MySqlRow;
use sqlx::{FromRow, Row};
use strum::IntoStaticStr;
use time::{Duration, OffsetDateTime};

use crate::domain::ids::OrderId;
use crate::domain::money::Money;
use crate::domain::review::ReviewLimits;

/// The part of an order that returns need.
#[derive(Debug, Clone)]
pub struct OrderFacts {
    pub id: OrderId,
    pub total: Money,
    /// What the shop has refunded itself. The column is the shop's, and no program of ours writes it.
    pub refunded_by_shop: Decimal,
    /// What this system has refunded: the sum over the order's returns that are refunded. So it is the same whatever the
    /// shop writes into its row.
    pub refunded_here: Decimal,
    pub status: String,
    pub delivered_at: Option<OffsetDateTime>,
}

/// The columns of [`OrderFacts`] that are the shop's, of the order `o`.
pub const ORDER: &str = "o.id, o.total, o.currency, o.refunded_amount, o.status, o.delivered_at";

/// The column of [`OrderFacts`] that is not in the order's row. It is exact only if the statement reads it after the order
/// `o` is locked: each change of a return to or from `refunded` is made under that lock. A refund in another currency than
/// the order has now counts as the whole total, because it cannot be subtracted.
pub const REFUNDED_HERE: &str = "(SELECT COALESCE(SUM(IF(paid.currency = o.currency, paid.refund_amount, o.total)), 0) \
     FROM returns AS paid FORCE INDEX (order_id) \
     WHERE paid.order_id = o.id AND paid.status = 'refunded') AS refunded_here";

impl FromRow<'_, MySqlRow> for OrderFacts {
    fn from_row(row: &MySqlRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            total: Money::from_row(row, "total")?,
            refunded_by_shop: row.try_get("refunded_amount")?,
            refunded_here: row.try_get("refunded_here")?,
            status: row.try_get("status")?,
            delivered_at: row.try_get("delivered_at")?,
        })
    }
}

impl OrderFacts {
    /// What is left to refund. It is negative if the shop counts refunds of this system too.
    pub fn refundable(&self) -> Money {
        let left = self.total.amount - self.refunded_by_shop - self.refunded_here;
        Money::new(left, self.total.currency.clone())
    }

    /// What was refunded, by the shop or here: at most the total, also if the shop counts refunds of this system too.
    pub fn refunded(&self) -> Money {
        let refunded = self.refunded_by_shop + self.refunded_here;
        Money::new(refunded.min(self.total.amount), self.total.currency.clone())
    }

    /// Whether the total is enough for `amount` and what this system has refunded. The shop's own column does not count: it
    /// may already have this very payment in it.
    pub fn total_covers(&self, amount: &Money) -> bool {
        let left = self.total.amount - self.refunded_here;
        self.total.currency == amount.currency && left >= amount.amount
    }

    /// Whether what is left to refund is enough for `amount`.
    pub fn covers(&self, amount: &Money) -> bool {
        let left = self.refundable();
        left.currency == amount.currency && left.amount >= amount.amount
    }
}

/// The settings of the policy.
#[derive(Debug, Clone, clap::Args)]
pub struct PolicyArgs {
    /// Days after delivery within which an order may be returned. Too low refuses honest customers; too high accepts
    /// very old orders.
    #[arg(long, env = "RETURN_WINDOW_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub return_window_days: u16,

    /// Refunds above the amount of their currency wait for an approval by an admin: EUR:100,JPY:15000. So does every refund
    /// in a currency without an amount. Unset: no refund waits.
    #[arg(long, env = "REVIEW_ABOVE_AMOUNT", value_name = "LIST")]
    pub review_above_amount: Option<ReviewLimits>,
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
    /// The currency cannot express the amount, or is none of ISO 4217.
    AmountNotPayable,
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
    let refundable = order.refundable();
    let payable = order.total.is_payable() && refundable.is_payable();
    let has_total = order.total.is_positive();
    violated([
        (
            !delivered || order.delivered_at.is_none(),
            Violation::OrderNotDelivered,
        ),
        (expired, Violation::WindowExpired),
        (!payable, Violation::AmountNotPayable),
        (!has_total, Violation::TotalNotPositive),
        (
            has_total && !refundable.is_positive(),
            Violation::AlreadyRefunded,
        ),
        (open, Violation::AlreadyOpen),
    ])
}

/// Every reason against paying the `amount` that was promised at filing; empty means that it is paid.
pub fn violations_of_payment(order: &OrderFacts, amount: &Money) -> Vec<Violation> {
    let same_currency = order.total.currency == amount.currency;
    violated([
        (
            !amount.is_payable() || !same_currency,
            Violation::AmountNotPayable,
        ),
        (
            same_currency && !order.covers(amount),
            Violation::AlreadyRefunded,
        ),
    ])
}

fn violated<const N: usize>(rules: [(bool, Violation); N]) -> Vec<Violation> {
    let broken = rules.into_iter().filter(|(violated, _)| *violated);
    broken.map(|(_, violation)| violation).collect()
}

impl PolicyArgs {
    /// Whether an admin must approve a refund of this amount.
    pub fn needs_review(&self, refund: &Money) -> bool {
        let limits = self.review_above_amount.as_ref();
        limits.is_some_and(|limits| limits.are_exceeded_by(refund))
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
            review_above_amount: Some("EUR:100".parse().expect("a limit")),
        }
    }

    fn money(amount: &str, currency: &str) -> Money {
        Money::new(
            amount.parse().expect("a decimal"),
            Currency::parse(currency).expect("a code"),
        )
    }

    fn euro(amount: &str) -> Money {
        money(amount, "EUR")
    }

    fn order() -> OrderFacts {
        OrderFacts {
            id: OrderId(1),
            total: euro("50"),
            refunded_by_shop: Decimal::ZERO,
            refunded_here: Decimal::ZERO,
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
        order.total = euro("50.001");
        order.refunded_by_shop = 51.into();
        assert_eq!(
            violations(&order, true, NOW, &policy()),
            [
                Violation::OrderNotDelivered,
                Violation::WindowExpired,
                Violation::AmountNotPayable,
                Violation::AlreadyRefunded,
                Violation::AlreadyOpen
            ]
        );
    }

    #[test]
    fn p5_refunds_of_the_shop_and_of_this_system_count_together() {
        let mut order = order();
        order.refunded_by_shop = 1.into();
        order.refunded_here = 9.into();
        assert!(order.covers(&euro("40")));
        assert!(!order.covers(&euro("40.01")));
        assert!(!order.covers(&money("1", "USD")));
        assert_eq!(order.refunded(), euro("10"));
        // The shop counts our refund too.
        order.refunded_by_shop = 50.into();
        assert_eq!(order.refunded(), euro("50"));
        assert_eq!(
            violations(&order, false, NOW, &policy()),
            [Violation::AlreadyRefunded]
        );
    }

    #[test]
    fn a_free_order_cannot_be_refunded() {
        let mut order = order();
        order.total = euro("0");
        assert_eq!(
            violations(&order, false, NOW, &policy()),
            [Violation::TotalNotPositive]
        );
    }

    /// Neither a rest of less than a cent nor half a yen can be sent to a provider.
    #[test]
    fn p5_only_an_amount_that_can_be_paid_is_promised() {
        for (total, by_the_shop, payable) in [
            (money("705", "JPY"), "0", true),
            (money("705.5", "JPY"), "0", false),
            (euro("49.995"), "0", false),
            (euro("49.99"), "0.005", false),
            (euro("49.995"), "0.005", false),
        ] {
            let mut order = order();
            order.total = total;
            order.refunded_by_shop = by_the_shop.parse().expect("a decimal");
            let found = violations(&order, false, NOW, &policy());
            assert_eq!(found.is_empty(), payable, "{order:?}: {found:?}");
        }
    }

    #[test]
    fn p6_only_the_money_is_checked_before_a_payment() {
        let mut moved_on = order();
        moved_on.status = "closed".to_owned();
        moved_on.delivered_at = None;
        assert_eq!(violations_of_payment(&moved_on, &euro("50")), []);
        let refunded = [Violation::AlreadyRefunded];
        assert_eq!(violations_of_payment(&order(), &euro("50.01")), refunded);
        let unpayable = [Violation::AmountNotPayable];
        assert_eq!(violations_of_payment(&order(), &euro("49.995")), unpayable);
        assert_eq!(
            violations_of_payment(&order(), &money("1", "USD")),
            unpayable
        );
    }

    #[test]
    fn only_amounts_above_the_limit_are_reviewed() {
        assert!(!policy().needs_review(&euro("100")));
        assert!(policy().needs_review(&euro("100.01")));
        let unset = PolicyArgs {
            review_above_amount: None,
            ..policy()
        };
        assert!(!unset.needs_review(&euro("100.01")));
    }
}
