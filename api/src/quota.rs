//! Limits how many of one kind are open at once, per user and in all. Each holds a connection (P12).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Debug)]
pub(crate) struct Quota {
    max: usize,
    per_user: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    /// All roles of a user count together, as in the rate limit.
    by_user: HashMap<i64, usize>,
}

/// One place of the quota; returned when dropped.
#[derive(Debug)]
pub(crate) struct QuotaPermit {
    quota: Arc<Quota>,
    user: i64,
}

/// Which limit is reached. As text: a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum QuotaExceeded {
    Caller,
    All,
}

impl QuotaExceeded {
    /// A metric label.
    pub(crate) fn code(self) -> &'static str {
        self.into()
    }
}

impl Quota {
    pub(crate) fn new(max: usize, per_user: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            per_user,
            open: Mutex::default(),
        })
    }

    /// # Errors
    /// Which limit is reached.
    pub(crate) fn acquire(self: &Arc<Self>, user: i64) -> Result<QuotaPermit, QuotaExceeded> {
        let mut open = self.lock();
        let own = open.by_user.get(&user).copied().unwrap_or(0);
        if own >= self.per_user {
            return Err(QuotaExceeded::Caller);
        }
        if open.all >= self.max {
            return Err(QuotaExceeded::All);
        }
        open.all += 1;
        open.by_user.insert(user, own + 1);
        Ok(QuotaPermit {
            quota: Arc::clone(self),
            user,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().expect("nothing panics while it is held")
    }
}

impl Drop for QuotaPermit {
    fn drop(&mut self) {
        let mut open = self.quota.lock();
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
    fn a_returned_permit_can_be_acquired_again() {
        let quota = Quota::new(3, 2);
        let first = quota.acquire(1).expect("a permit");
        let _second = quota.acquire(1).expect("a permit");
        assert_eq!(
            quota.acquire(1).err(),
            Some(QuotaExceeded::Caller),
            "one user has two"
        );
        let third = quota.acquire(2).expect("a permit");
        assert_eq!(
            quota.acquire(3).err(),
            Some(QuotaExceeded::All),
            "three in all"
        );
        drop(first);
        let others = quota.acquire(3);
        assert!(others.is_ok());
        drop(third);
        assert!(quota.acquire(1).is_ok() && quota.lock().by_user.len() == 2);
    }
}
