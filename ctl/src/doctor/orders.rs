//! The shop's orders: those that can be returned by every rule, but not be paid back, and those that count as refunded twice.

use shared::domain::money::Money;

use super::report::{Check, Report};
use crate::session::Session;
use crate::store::amounts::{NEWEST_ORDERS, Overcounted, Unpayable, overcounted, unpayable};
use crate::text::{counted, printable};

const NAME: &str = "amounts of orders";
const REFUNDS: &str = "refunds of orders";
/// More examples would not help: they are of one import.
const EXAMPLES: u32 = 5;

/// Needs a database that has the schema of this build.
pub(super) async fn examine(session: &Session, report: &mut Report) {
    let found = session.check("unpayable", |conn| Box::pin(unpayable(conn)));
    report.add(match found.await {
        Ok(found) => check(&found),
        Err(error) => Check::of_error(NAME, &error),
    });
    let found = session.check("overcounted", |conn| Box::pin(overcounted(conn, EXAMPLES)));
    report.add(match found.await {
        Ok((orders, examples)) => refunds(orders, &examples),
        Err(error) => Check::of_error(REFUNDS, &error),
    });
}

/// It is no fault of the programs, and often the shop only counts our refunds too. But if it has paid by hand, the customer has
/// been paid twice.
fn refunds(orders: i64, examples: &[Overcounted]) -> Check {
    if orders == 0 {
        return Check::ok(REFUNDS, "at most the total of each counts as refunded");
    }
    let named: Vec<String> = examples
        .iter()
        .map(|order| {
            let currency = &order.total.currency;
            let [by_shop, here] = [order.by_shop, order.here]
                .map(|amount| Money::new(amount, currency.clone()).decimal_text());
            let total = printable(&order.total.to_string());
            format!(
                "order {}: {by_shop} by the shop and {here} by returns, of {total}",
                order.id
            )
        })
        .collect();
    Check::warn(
        REFUNDS,
        format!(
            "of the newest {NEWEST_ORDERS} orders, {} with more than the total: {}",
            counted(orders, "order"),
            named.join("; ")
        ),
        "have the shop write `refunded_amount` without what was refunded through returns; if the shop has paid too, ask for one \
         payment back (docs/OPERATIONS.md, Copy the shop's orders)",
    )
}

fn check(found: &Unpayable) -> Check {
    if found.orders == 0 {
        return Check::ok(NAME, "their currencies can express them");
    }
    let examples: Vec<String> = found
        .examples
        .iter()
        .take(EXAMPLES as usize)
        .map(|(id, total)| format!("order {id} over {}", printable(&total.to_string())))
        .collect();
    Check::warn(
        NAME,
        format!(
            "of the newest {NEWEST_ORDERS} orders, {} with an amount that the currency cannot express, or with a currency \
             that ISO 4217 does not have: {}",
            counted(found.orders, "order"),
            examples.join(", ")
        ),
        "correct them where the shop copies its orders; their returns are refused with `amount_not_payable`",
    )
}
