//! How much of one kind may be open: of one user, and of all. What is open holds a connection, so both are bounded (P12).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Debug)]
pub(crate) struct Slots {
    max: usize,
    per_user: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    /// In whatever role: as for rates.
    by_user: HashMap<i64, usize>,
}

/// One of them; given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    user: i64,
}

/// Who has as many as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    User,
    All,
}

impl Slots {
    pub(crate) fn new(max: usize, per_user: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            per_user,
            open: Mutex::default(),
        })
    }

    /// # Errors
    /// Who has as many as there may be.
    pub(crate) fn take(self: &Arc<Self>, user: i64) -> Result<Slot, Full> {
        let mut open = self.lock();
        let own = open.by_user.get(&user).copied().unwrap_or(0);
        if own >= self.per_user {
            return Err(Full::User);
        }
        if open.all >= self.max {
            return Err(Full::All);
        }
        open.all += 1;
        open.by_user.insert(user, own + 1);
        Ok(Slot {
            slots: Arc::clone(self),
            user,
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_given_back_can_be_taken_again() {
        let slots = Slots::new(3, 2);
        let first = slots.take(1).expect("a slot");
        let _second = slots.take(1).expect("a slot");
        assert_eq!(slots.take(1).err(), Some(Full::User), "one user has two");
        let third = slots.take(2).expect("a slot");
        assert_eq!(slots.take(3).err(), Some(Full::All), "three in all");
        drop(first);
        let others = slots.take(3);
        assert!(others.is_ok());
        drop(third);
        assert!(slots.take(1).is_ok() && slots.lock().by_user.len() == 2);
    }
}
