//! One type for each kind of id, so that the id of an order is never used as that of a return.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A row of `returns`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type,
)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct ReturnId(pub i64);

/// An order of the shop.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type,
)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct OrderId(pub i64);

/// A customer of the shop.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type,
)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct CustomerId(pub i64);

/// The id of an event in `return_events`, `outbox`, Kafka (`ce_id`) and `inbox`: a UUIDv7.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type,
)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct EventId(pub Uuid);

impl EventId {
    /// Makes a new id. The ids of one process ascend.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

/// One of the [`Shard::COUNT`] shards of the outbox. A relay owns whole shards and keeps the order within each.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type,
)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct Shard(pub u8);

impl Shard {
    /// This never changes, because existing rows hold their shard.
    pub const COUNT: u8 = 16;

    /// The shard of the events of an order: `CRC32(decimal text of the id) & 15`, the same as in SQL.
    pub fn of(order: OrderId) -> Self {
        let low_bits = crc32fast::hash(order.to_string().as_bytes()) & u32::from(Self::COUNT - 1);
        Self(u8::try_from(low_bits).expect("four bits fit in a byte"))
    }

    /// Every shard, ascending.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }
}

macro_rules! display_the_value {
    ($($id:ty),*) => {$(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

display_the_value!(ReturnId, OrderId, CustomerId, EventId, Shard);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_is_the_low_bits_of_crc32_of_the_decimal_text() {
        // CRC32("123") = 0x884863d2 (IEEE), the value MySQL's CRC32('123') gives: 2286445522.
        assert_eq!(Shard::of(OrderId(123)), Shard(2));
        assert!((0..1_000).all(|id| Shard::of(OrderId(id)).0 < Shard::COUNT));
    }
}
