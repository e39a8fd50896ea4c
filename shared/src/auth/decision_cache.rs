//! Policy decisions about one token, cached until the end of the current second: repeated requests cost no evaluation.
//!
//! Must stay true: only the same request within the same second gets the cached decision. This is exact and not merely
//! recent: the policy sees whole seconds, as tokens have them, and a request holds everything else that may differ.

use std::sync::{Mutex, MutexGuard};

use super::access::{Denied, Request};

/// The most requests that are cached for one token, about 64 bytes each. Only the checks of a Biscuit can
/// distinguish returns, so a JWT needs far fewer.
const CAPACITY: usize = 16;

/// The cache of one token, for the one policy of a process.
#[derive(Debug, Default)]
pub(super) struct DecisionCache {
    current: Mutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    /// Unix seconds.
    second: u64,
    decisions: Vec<(Request, Result<(), Denied>)>,
}

impl DecisionCache {
    /// The cached decision of this second, or the result of `evaluate`.
    pub(super) fn get_or_evaluate(
        &self,
        request: Request,
        second: u64,
        evaluate: impl FnOnce() -> Result<(), Denied>,
    ) -> Result<(), Denied> {
        if let Some(cached) = self.current(second).decision(&request) {
            return cached;
        }
        // Without the lock: two callers at the same time evaluate the same twice.
        let decision = evaluate();
        let mut current = self.current(second);
        let is_cacheable = match decision {
            // A timeout says nothing about the next attempt; the reason why a token is not accepted is a long text.
            Err(Denied::Undecided | Denied::Token(_)) => false,
            Ok(()) | Err(Denied::Forbidden | Denied::NotYours) => true,
        };
        if is_cacheable && current.decisions.len() < CAPACITY {
            current.decisions.push((request, decision.clone()));
        }
        decision
    }

    /// The decisions of this second. Those of any other second, also of a later one, are dropped.
    fn current(&self, second: u64) -> MutexGuard<'_, Current> {
        let mut current = self.current.lock().expect("no panic under this lock");
        if current.second != second {
            current.second = second;
            current.decisions.clear();
        }
        current
    }
}

impl Current {
    fn decision(&self, request: &Request) -> Option<Result<(), Denied>> {
        let mut cached = self.decisions.iter();
        let (_, decision) = cached.find(|(cached, _)| cached == request)?;
        Some(decision.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::Operation;
    use super::*;
    use crate::domain::ids::{CustomerId, ReturnId};

    fn about(id: i64) -> Request {
        Request::about(Operation::ReturnsRead, ReturnId(id), Some(CustomerId(7)))
    }

    #[test]
    fn the_same_request_is_evaluated_once_a_second() {
        let cache = DecisionCache::default();
        let allowed = || Ok(());
        let never = || panic!("evaluated again");
        assert_eq!(cache.get_or_evaluate(about(1), 100, allowed), Ok(()));
        assert_eq!(cache.get_or_evaluate(about(1), 100, never), Ok(()));
        for (request, second) in [(about(2), 100), (about(1), 101), (about(1), 100)] {
            let forbidden = Err(Denied::Forbidden);
            let evaluate = || Err(Denied::Forbidden);
            assert_eq!(cache.get_or_evaluate(request, second, evaluate), forbidden);
            assert_eq!(cache.get_or_evaluate(request, second, never), forbidden);
        }
    }

    #[test]
    fn a_timeout_is_not_cached() {
        let cache = DecisionCache::default();
        let undecided = cache.get_or_evaluate(about(1), 100, || Err(Denied::Undecided));
        assert_eq!(undecided, Err(Denied::Undecided));
        assert_eq!(cache.get_or_evaluate(about(1), 100, || Ok(())), Ok(()));
    }

    #[test]
    fn the_cache_is_bounded() {
        let cache = DecisionCache::default();
        for id in 0..100 {
            assert_eq!(cache.get_or_evaluate(about(id), 100, || Ok(())), Ok(()));
        }
        assert_eq!(cache.current(100).decisions.len(), CAPACITY);
        let evaluated = cache.get_or_evaluate(about(99), 100, || Err(Denied::Forbidden));
        assert_eq!(evaluated, Err(Denied::Forbidden));
    }
}
