//! An attempt that this process owns and has to carry to a settled outcome.

use std::sync::OnceLock;

use shared::domain::ids::OrderId;
use shared::domain::money::Money;
use shared::domain::refund::{AttemptId, ProviderKey};
use shared::domain::trace_context::TraceContext;
use shared::runtime::clock::Expiry;
use strum::{IntoStaticStr, VariantNames};
use time::OffsetDateTime;

use crate::stages::Submitted;

/// See the module.
#[derive(Debug, Clone)]
pub struct OwnedAttempt {
    pub id: AttemptId,
    pub order_id: OrderId,
    pub key: ProviderKey,
    pub amount: Money,
    pub sent: SendState,
    /// The row's `call_deadline` as we wrote it. A process may own one attempt twice, while the first call is still under
    /// way; this value differs.
    pub owned_until: OffsetDateTime,
    /// The same moment by our own clocks, counted from before the row was written, so never later.
    pub deadline: Expiry,
    /// When it was first sent, if it was.
    pub submitted: OnceLock<Submitted>,
    /// What led to it: the processing of a record, or the return's last change. `None`: not known.
    pub trace: Option<TraceContext>,
    /// What ended the attempt before, if this is not the first one.
    pub earlier: Option<TraceContext>,
}

/// What earlier calls may have done at the gateway, as far as the row shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendState {
    /// We claimed it just now, for a gateway that honors its key: it is sent without a look-up.
    Fresh,
    /// As far as the row shows it was not sent, but it is looked up first: it was taken over, or claimed long after its
    /// filing, or the gateway honors no keys and a failover may have lost an attempt that was sent.
    Unsent,
    /// Taken over, and it may have been sent. `may_resend`: with the same key, within the key's lifetime.
    MaybeSent { may_resend: bool, checks: i32 },
    /// Taken over; the gateway has accepted it.
    Pending { gateway_ref: String },
    /// Taken over to ask whether the payment still stands.
    Paid { gateway_ref: String },
}

impl SendState {
    /// Whether the next call is certainly the attempt's first.
    pub fn is_unsent(&self) -> bool {
        match self {
            Self::Fresh | Self::Unsent => true,
            Self::MaybeSent { .. } | Self::Pending { .. } | Self::Paid { .. } => false,
        }
    }

    /// How often it was sent, as far as the row shows: each look-up that found nothing was followed by a call.
    pub fn sent_before(&self) -> u32 {
        match self {
            Self::MaybeSent { checks, .. } => u32::try_from(*checks).unwrap_or(0).max(1),
            Self::Fresh | Self::Unsent | Self::Pending { .. } | Self::Paid { .. } => 0,
        }
    }
}

/// Why the outcome of an attempt was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum NotSettled {
    /// Another transaction holds the return or its order: try again.
    Held,
    /// It cannot be written; the attempt's row is due at its deadline, and looked up.
    Failed,
}

impl NotSettled {
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
