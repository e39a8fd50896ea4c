//! What a report about one return begins with.

use serde::Serialize;
use shared::domain::ids::{CustomerId, OrderId, ReturnId};
use shared::domain::status::Status;

use crate::store::returns::ReturnRow;
use crate::text::rfc3339;

#[derive(Debug, Serialize)]
pub(crate) struct ReturnHead {
    pub(crate) return_id: ReturnId,
    pub(crate) order_id: OrderId,
    pub(crate) customer_id: CustomerId,
    pub(crate) status: Status,
    pub(crate) version: i32,
    pub(crate) refund_amount: String,
    pub(crate) currency: String,
    pub(crate) created_at: String,
    pub(crate) updated_at: String,
}

impl ReturnHead {
    pub(crate) fn of(return_id: ReturnId, row: &ReturnRow) -> Self {
        Self {
            return_id,
            order_id: row.order_id,
            customer_id: row.customer_id,
            status: row.status,
            version: row.version,
            refund_amount: row.refund_amount.decimal_text(),
            currency: row.refund_amount.currency.to_string(),
            created_at: rfc3339(row.created_at),
            updated_at: rfc3339(row.updated_at),
        }
    }

    /// The first line of the text.
    pub(crate) fn title(&self) -> String {
        format!(
            "return {} of order {}, customer {}: {}, version {}",
            self.return_id, self.order_id, self.customer_id, self.status, self.version
        )
    }
}
