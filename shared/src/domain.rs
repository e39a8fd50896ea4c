//! The rules of returns and refunds. The only I/O is that of [`transition`] and of the tables it writes.

pub mod ids;
pub mod money;
pub mod review;
pub mod status;

pub mod actor;
pub mod eligibility;
pub mod trace_context;

pub mod reason_code;
pub mod refund;

pub mod dead_letter;
pub mod event;
pub mod transition;

pub mod audit;
pub mod outbox;

pub mod bulk;
pub mod row;
pub mod timestamp;
