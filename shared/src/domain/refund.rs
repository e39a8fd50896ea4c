//! Paying a return back: its attempts, what may happen to them, and their rows in `refunds`.
//!
//! Must stay true: at most one attempt of a return pays. A later attempt is recorded only when every earlier one paid
//! nothing. An attempt that contradicts this, or whose outcome cannot be known, waits for a person.

mod attempt;
pub mod notification;
mod outcome;
mod overdue;
mod park_reason;
mod recheck;
mod rows;
mod state;

pub use attempt::{
    Attempt, AttemptId, AttemptState, GATEWAY_REF, MARKED_NOT_PAID, NoFurther, OVERDUE,
    ProviderKey, following, is_gateway_ref,
};
pub use outcome::{Outcome, OutcomeReport, Settled, UnusableAnswer};
pub use overdue::{OverdueRechecks, overdue_rechecks};
pub use park_reason::ParkReason;
pub use recheck::RECHECKS;
pub use rows::{ATTEMPT, IfHeld, datetime, lock_attempts, update_attempts};
pub use state::{MarkPaid, Pauses, RefundState, Refusal, SettleStep};
