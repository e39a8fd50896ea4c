//! The shop's orders: those that can be returned by every rule, but not be paid back.

use super::report::{Check, Report};
use crate::session::Session;
use crate::store::amounts::{NEWEST_ORDERS, Unpayable, unpayable};
use crate::text::{counted, printable};

const NAME: &str = "amounts of orders";
/// More examples would not help: they are of one import.
const EXAMPLES: usize = 5;

/// Needs a database that has the schema of this build.
pub(super) async fn examine(session: &Session, report: &mut Report) {
    let found = session.check("unpayable", |conn| Box::pin(unpayable(conn)));
    report.add(match found.await {
        Ok(found) => check(&found),
        Err(error) => Check::of_error(NAME, &error),
    });
}

fn check(found: &Unpayable) -> Check {
    if found.orders == 0 {
        return Check::ok(NAME, "their currencies can express them");
    }
    let examples: Vec<String> = found
        .examples
        .iter()
        .take(EXAMPLES)
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
