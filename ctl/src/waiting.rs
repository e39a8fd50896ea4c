//! What waits for a person, or stands still: the kinds, and the command that a person types next for each.

use serde::Serialize;
use strum::IntoStaticStr;

/// One kind, in the order of a list: what stands still comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Kind {
    /// Shards that no relay publishes.
    UnattendedShards,
    /// Events that a relay should have sent long ago.
    LateEvents,
    /// Topics that do not exist, or in which the relay cannot write.
    TroubledTopics,
    /// Records that no consumer reads.
    UnreadRecords,
    UnclaimedReturns,
    OverdueRefunds,
    ParkedEvents,
    ParkedRefunds,
    /// Parked refunds that a second person must confirm.
    MarkRequests,
    FailedRefunds,
    Reviews,
    DeadLetters,
    PausedShards,
    /// Paid, and the provider no longer confirms it.
    DoubtfulRefunds,
}

/// What a kind means for the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Urgency {
    /// A program should have moved it.
    Stuck,
    /// Nothing is broken, and only a person can move it.
    Person,
    /// Nothing can be decided here: worth knowing, and no more.
    Notice,
}

impl Urgency {
    /// The word before a line; `STUCK` is the one that must not be overlooked.
    pub(crate) fn mark(self) -> &'static str {
        match self {
            Self::Stuck => "STUCK",
            Self::Person => "wait",
            Self::Notice => "note",
        }
    }
}

impl Kind {
    pub(crate) fn urgency(self) -> Urgency {
        match self {
            Self::UnattendedShards
            | Self::LateEvents
            | Self::TroubledTopics
            | Self::UnreadRecords
            | Self::UnclaimedReturns
            | Self::OverdueRefunds => Urgency::Stuck,
            Self::ParkedEvents
            | Self::ParkedRefunds
            | Self::MarkRequests
            | Self::FailedRefunds
            | Self::Reviews
            | Self::DeadLetters
            | Self::PausedShards => Urgency::Person,
            Self::DoubtfulRefunds => Urgency::Notice,
        }
    }

    /// `parked events`
    pub(crate) fn title(self) -> String {
        <&str>::from(self).replace('_', " ")
    }

    pub(crate) fn command(self) -> &'static str {
        match self {
            Self::UnattendedShards => "returnsctl outbox stats",
            Self::LateEvents => "returnsctl outbox peek",
            Self::TroubledTopics => "returnsctl outbox topics",
            Self::UnreadRecords => "returnsctl doctor",
            Self::UnclaimedReturns => "returnsctl returns list --stuck",
            Self::OverdueRefunds => "returnsctl refunds list --state overdue",
            Self::ParkedEvents => "returnsctl outbox parked",
            Self::ParkedRefunds => "returnsctl refunds list --state parked",
            Self::MarkRequests => "returnsctl refunds list --state parked",
            Self::FailedRefunds => "returnsctl refunds list --state refund_failed",
            Self::Reviews => "returnsctl returns list --in-review",
            Self::DeadLetters => "returnsctl dead-letters list",
            Self::PausedShards => "returnsctl outbox resume --shard N --by NAME --reason TEXT",
            Self::DoubtfulRefunds => "returnsctl refunds list --state doubtful",
        }
    }
}
