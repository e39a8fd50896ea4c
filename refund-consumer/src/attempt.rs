//! An attempt to pay a return back: the words that claim, call and settlement share.

use std::time::Instant;

use shared::domain::ids::OrderId;
use shared::domain::money::Money;
use shared::domain::trace_context::TraceContext;
use time::OffsetDateTime;
use uuid::Uuid;

pub use shared::domain::attempt::{AttemptId, AttemptState, IdempotencyKey};

/// An attempt as stored, locked by the transaction that read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub id: AttemptId,
    pub state: AttemptState,
    /// Who may call the gateway for it; free when `None`.
    pub owner: Option<Uuid>,
    pub call_deadline: Option<OffsetDateTime>,
    pub first_sent_at: Option<OffsetDateTime>,
    pub next_check_at: OffsetDateTime,
    /// Look-ups and polls so far.
    pub checks: i32,
    pub amount: Money,
    pub gateway: Option<String>,
    pub gateway_ref: Option<String>,
    pub last_error: Option<String>,
}

/// An attempt this process owns and has to carry to an outcome.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub id: AttemptId,
    pub order_id: OrderId,
    pub key: IdempotencyKey,
    pub amount: Money,
    pub known: Known,
    /// The row's `call_deadline` as we wrote it. It tells this taking of the attempt from an earlier one by the same
    /// process, which may still be under way.
    pub taken_until: OffsetDateTime,
    /// Our own clock's reading of `call_deadline`, counted from before it was written: at or before it.
    pub deadline: Instant,
    /// The trace of the message; without one the return's own trace is continued.
    pub trace: Option<TraceContext>,
}

/// What the row tells about the gateway's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// We claimed it just now: nobody can have sent it.
    Fresh,
    /// Taken over, or claimed long after its filing. It was certainly not sent, but `find` is asked first all the same.
    Unsent,
    /// Taken over, and it may have been sent. `may_resend`: with the same key, within the key's lifetime.
    MaybeSent { may_resend: bool, checks: i32 },
    /// Taken over; the gateway has accepted it.
    Pending { gateway_ref: String },
}

impl Known {
    /// Whether the call about to be made is the attempt's first for certain.
    pub fn is_unsent(&self) -> bool {
        match self {
            Self::Fresh | Self::Unsent => true,
            Self::MaybeSent { .. } | Self::Pending { .. } => false,
        }
    }
}
