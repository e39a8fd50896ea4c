//! Limits how many of one kind are open at once, per holder and in all. Each holds a connection (P12).

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};

use shared::auth::Holder;

#[derive(Debug)]
pub(crate) struct Quota<K: Hash + Eq = Holder> {
    max: usize,
    per_holder: usize,
    open: Mutex<Open<K>>,
}

#[derive(Debug)]
struct Open<K> {
    all: usize,
    /// All roles of a user count together, as in the rate limit.
    by_holder: HashMap<K, usize>,
}

/// One place of the quota; returned when dropped.
#[derive(Debug)]
pub(crate) struct QuotaPermit<K: Hash + Eq = Holder> {
    quota: Arc<Quota<K>>,
    holder: K,
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

impl<K: Hash + Eq + Clone> Quota<K> {
    pub(crate) fn new(max: usize, per_holder: usize) -> Arc<Self> {
        let open = Open {
            all: 0,
            by_holder: HashMap::new(),
        };
        Arc::new(Self {
            max,
            per_holder,
            open: Mutex::new(open),
        })
    }

    /// # Errors
    /// Which limit is reached.
    pub(crate) fn acquire(self: &Arc<Self>, holder: K) -> Result<QuotaPermit<K>, QuotaExceeded> {
        let mut open = self.lock();
        let own = open.by_holder.get(&holder).copied().unwrap_or(0);
        if own >= self.per_holder {
            return Err(QuotaExceeded::Caller);
        }
        if open.all >= self.max {
            return Err(QuotaExceeded::All);
        }
        open.all += 1;
        open.by_holder.insert(holder.clone(), own + 1);
        Ok(QuotaPermit {
            quota: Arc::clone(self),
            holder,
        })
    }
}

impl<K: Hash + Eq> Quota<K> {
    fn lock(&self) -> MutexGuard<'_, Open<K>> {
        self.open.lock().expect("nothing panics while it is held")
    }
}

impl<K: Hash + Eq> Drop for QuotaPermit<K> {
    fn drop(&mut self) {
        let mut open = self.quota.lock();
        open.all -= 1;
        if let Some(own) = open.by_holder.get_mut(&self.holder) {
            *own -= 1;
            if *own == 0 {
                open.by_holder.remove(&self.holder);
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
        assert!(quota.acquire(1).is_ok() && quota.lock().by_holder.len() == 2);
    }
}
