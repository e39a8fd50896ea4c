//! Rows as the JSON of responses. Money is a decimal string with its currency; times are RFC 3339 in UTC.

use serde::Serialize;
use serde_json::Value;
use shared::domain::eligibility::{self, PolicyArgs, Violation};
use shared::domain::ids::{EventId, OrderId, ReturnId};
use shared::domain::money::Money;
use shared::domain::status::{Status, event_types};
use shared::domain::timestamp::timestamp_text;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::store::{EventRow, OperatorActionRow, OrderRow, ReturnRow};

/// A return.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Return)]
pub(crate) struct ReturnView {
    #[schema(value_type = i64, minimum = 1)]
    return_id: ReturnId,
    #[schema(value_type = i64, minimum = 1)]
    order_id: OrderId,
    customer_id: i64,
    status: Status,
    /// As filed; empty without a reason.
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason_code: Option<String>,
    /// A person has to approve it before the refund.
    review_required: bool,
    /// The amount of the refund, fixed at filing.
    refund: MoneyView,
    /// Raised by every change; the `ETag` is this number in quotes.
    #[schema(minimum = 1)]
    version: i32,
    #[schema(format = "date-time")]
    created_at: String,
    #[schema(format = "date-time")]
    updated_at: String,
}

/// An amount of money: a decimal number in its currency.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Money)]
pub(crate) struct MoneyView {
    /// With the decimal places of its currency: `49.90` EUR, `705` JPY.
    #[schema(pattern = r"^-?[0-9]+(\.[0-9]+)?$", example = "49.90")]
    amount: String,
    /// ISO 4217; of an order, the code that the shop wrote.
    #[schema(max_length = 3, example = "EUR")]
    currency: String,
}

impl From<&Money> for MoneyView {
    fn from(money: &Money) -> Self {
        Self {
            amount: money.decimal_text(),
            currency: money.currency.to_string(),
        }
    }
}

impl From<ReturnRow> for ReturnView {
    fn from(row: ReturnRow) -> Self {
        Self {
            return_id: row.id,
            order_id: row.order_id,
            customer_id: row.customer_id.0,
            status: row.status,
            reason: row.reason,
            reason_code: row.reason_code,
            review_required: row.review_required,
            refund: MoneyView::from(&row.refund_amount),
            version: row.version,
            created_at: timestamp_text(row.created_at),
            updated_at: timestamp_text(row.updated_at),
        }
    }
}

/// An order of the caller.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Order)]
pub(crate) struct OrderView {
    #[schema(value_type = i64, minimum = 1)]
    order_id: OrderId,
    /// The shop's name for it.
    #[schema(example = "delivered")]
    status: String,
    #[schema(required, format = "date-time")]
    delivered_at: Option<String>,
    total: MoneyView,
    /// The amount already refunded, by the shop or through returns.
    refunded: MoneyView,
    /// Whether a return would be accepted now.
    returnable: bool,
    /// Every reason against it.
    reasons: Vec<Violation>,
    /// The open return, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, nullable = false, minimum = 1)]
    open_return_id: Option<ReturnId>,
}

impl OrderView {
    pub(super) fn new(order: &OrderRow, policy: &PolicyArgs) -> Self {
        let facts = &order.facts;
        let open = order.open_return.is_some();
        let reasons = eligibility::violations(facts, open, order.now, policy);
        Self {
            order_id: facts.id,
            status: facts.status.clone(),
            delivered_at: facts.delivered_at.map(timestamp_text),
            total: MoneyView::from(&facts.total),
            refunded: MoneyView::from(&facts.refunded()),
            returnable: reasons.is_empty(),
            reasons,
            open_return_id: order.open_return,
        }
    }
}

/// An event, with everything that its hash covers, as it was hashed. So a reader can verify the chain.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub(crate) struct EventView {
    #[schema(value_type = i64, minimum = 1)]
    return_id: ReturnId,
    /// Position in the return's history, from 1, without gaps.
    #[schema(minimum = 1)]
    seq: i32,
    /// The same in Kafka (`ce_id`).
    #[schema(value_type = String, format = "uuid")]
    event_id: EventId,
    #[schema(example = "return.initiated")]
    event_type: String,
    actor: ActorView,
    #[schema(required)]
    request_id: Option<String>,
    #[schema(required)]
    trace_id: Option<String>,
    #[schema(format = "date-time")]
    created_at: String,
    /// JSON as text, byte for byte. As nested JSON it could be reformatted and would not match the hash.
    event_data: String,
    /// `hash` of the previous event; 64 zeros for the first.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    prev_hash: String,
    /// SHA-256 over all of the above.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    hash: String,
}

/// The type of an event, for the contract. Code uses the text of `shared::domain::status`.
pub(super) struct EventType;

impl PartialSchema for EventType {
    fn schema() -> RefOr<Schema> {
        let types = ObjectBuilder::new().schema_type(Type::String);
        types.enum_values(Some(event_types())).into()
    }
}

impl ToSchema for EventType {}

/// What a person did with `returnsctl`, and why.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OperatorAction)]
pub(crate) struct OperatorActionView {
    /// An event that the action wrote has it as `operator_action`.
    #[schema(minimum = 1)]
    id: i64,
    actor: OperatorView,
    #[schema(example = "refund.retry")]
    verb: String,
    /// In the person's own words.
    reason: String,
    #[schema(format = "date-time")]
    created_at: String,
    /// The MySQL account that wrote it, which nobody can type.
    #[schema(required)]
    db_account: Option<String>,
    #[schema(required, value_type = Option<i64>)]
    return_id: Option<ReturnId>,
    /// The event that was redriven or discarded.
    #[schema(required, value_type = Option<String>, format = "uuid")]
    event_id: Option<EventId>,
    #[schema(required)]
    shard: Option<u8>,
    /// What the action was about, by its verb; for an admin also the token that proved the role.
    #[schema(required, value_type = Option<Object>)]
    details: Option<Value>,
}

/// The person of an action.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Operator)]
struct OperatorView {
    /// `admin`: known by a token; `operator`: by the name that was typed.
    #[serde(rename = "type")]
    kind: String,
    /// The number of an admin, or the name of an operator.
    id: String,
}

impl From<OperatorActionRow> for OperatorActionView {
    fn from(row: OperatorActionRow) -> Self {
        Self {
            id: row.position.id,
            actor: OperatorView {
                kind: row.actor_type,
                id: row.actor_id,
            },
            verb: row.verb,
            reason: row.reason,
            created_at: timestamp_text(row.position.created_at),
            db_account: row.db_account,
            return_id: row.return_id,
            event_id: row.event_id,
            shard: row.shard,
            // The column's type is JSON.
            details: row
                .details
                .and_then(|text| serde_json::from_str(&text).ok()),
        }
    }
}

/// Who made a change.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Actor)]
struct ActorView {
    /// `customer`, `admin`, `policy` or `system`.
    #[serde(rename = "type")]
    kind: String,
    /// A user's number, the version of the policy, or the name of a program.
    id: String,
}

impl From<EventRow> for EventView {
    fn from(row: EventRow) -> Self {
        Self {
            return_id: row.return_id,
            seq: row.seq,
            event_id: row.event_id,
            event_type: row.event_type,
            actor: ActorView {
                kind: row.actor_type,
                id: row.actor_id,
            },
            request_id: row.request_id,
            trace_id: row.trace_id,
            created_at: timestamp_text(row.position.created_at),
            event_data: row.event_data,
            prev_hash: row.prev_hash,
            hash: row.hash,
        }
    }
}
