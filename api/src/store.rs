//! All SQL of the api except what `shared::domain::transition` writes, and the rows that it reads.
//!
//! One statement per function. A list is bound as one JSON parameter, so every text is static and is prepared once
//! per connection. Reads that lock several rows start at the list and force the index.

mod backlog;
mod events;
mod idempotency;
mod notifications;
mod operator_actions;
mod orders;
mod returns;
mod status_events;
mod trails;
mod unclaimed;

pub(crate) use self::backlog::{
    Backlog, Chunk, Lease, Measurement, Shown, make_backlog, measure_shard, read_backlog,
    show_counted, show_measurement, take_measurement,
};
pub(crate) use self::events::{
    EventFilter, EventRow, Position, Walk, list_events, list_events_of, now,
};
pub(crate) use self::idempotency::{
    IdempotencyKey, StoredResponse, delete_expired_keys, insert_responses, read_responses,
};
pub(crate) use self::notifications::make_refund_due;
pub(crate) use self::operator_actions::{
    OperatorActionFilter, OperatorActionRow, OperatorType, list_operator_actions,
};
pub(crate) use self::orders::{OrderLock, OrderRow, get_order, list_orders, read_orders};
pub(crate) use self::returns::{
    ReturnFilter, ReturnRow, find_by_first_event, get_return, has_event, list_returns, owner_of,
};
pub(crate) use self::status_events::{StatusRow, read_changes, read_page};
pub(crate) use self::trails::{
    BrokenTrail, broken_trail_of, broken_trail_of_order, no_trail_at_all,
};
pub(crate) use self::unclaimed::{OldestUnclaimed, oldest_unclaimed};
