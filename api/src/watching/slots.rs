//! How many streams may be open: of one caller, and of all. Each holds a connection, so both are bounded (P12).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use shared::auth::Caller;

use crate::metrics::Metrics;

#[derive(Debug)]
pub(super) struct Slots {
    max: usize,
    per_caller: usize,
    metrics: Arc<Metrics>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    /// By user, in whatever role: as for rates.
    by_user: HashMap<i64, usize>,
}

/// One open stream; given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    user: i64,
}

impl Slots {
    pub(super) fn new(max: u32, per_caller: u16, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            max: usize::try_from(max).expect("bounded by the setting"),
            per_caller: usize::from(per_caller),
            metrics,
            open: Mutex::default(),
        })
    }

    /// `None` when this caller, or everybody together, has as many as there may be.
    pub(super) fn take(self: &Arc<Self>, caller: &Caller) -> Option<Slot> {
        let mut open = self.lock();
        let own = open.by_user.get(&caller.user).copied().unwrap_or(0);
        let full = if own >= self.per_caller {
            Some("caller")
        } else {
            (open.all >= self.max).then_some("all")
        };
        if let Some(limit) = full {
            self.metrics.streams.refused(limit);
            return None;
        }
        open.all += 1;
        open.by_user.insert(caller.user, own + 1);
        self.metrics.streams.open.inc();
        Some(Slot {
            slots: Arc::clone(self),
            user: caller.user,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().expect("nothing panics while it is held")
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.slots.lock();
        open.all -= 1;
        if let Some(own) = open.by_user.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                open.by_user.remove(&self.user);
            }
        }
        self.slots.metrics.streams.open.dec();
    }
}

#[cfg(test)]
mod tests {
    use shared::auth::Role;

    use super::*;

    #[test]
    fn a_slot_given_back_can_be_taken_again() {
        let slots = Slots::new(3, 2, Arc::new(Metrics::new()));
        let caller = |user, role| Caller { user, role };
        let (one, two) = (caller(1, Role::Customer), caller(2, Role::Customer));
        let first = slots.take(&one).expect("a slot");
        let _second = slots.take(&one).expect("a slot");
        assert!(slots.take(&one).is_none(), "one caller has two");
        // As an admin the same user is nobody else.
        assert!(slots.take(&caller(1, Role::Admin)).is_none());
        let third = slots.take(&two);
        let others = caller(3, Role::Customer);
        assert!(
            third.is_some() && slots.take(&others).is_none(),
            "three in all"
        );
        drop(first);
        assert!(slots.take(&others).is_some());
        drop(third);
        assert!(slots.take(&one).is_some() && slots.lock().by_user.len() == 1);
    }
}
