//! Is it this refund, or is it every refund? If several are refused one after the other and none is accepted, the settings or
//! the account are wrong: then calls wait, and no single refund is blamed.

use std::collections::HashSet;
use std::time::Duration;

use shared::domain::refund::ProviderKey;
use tokio::time::Instant;

/// This many different refunds, refused one after the other, cannot each be at fault.
const SEVERAL: usize = 3;

/// The calls of one kind that were refused or not understood since the last one that was accepted.
#[derive(Debug)]
pub(super) struct Refusals {
    calls: u32,
    /// At most [`SEVERAL`].
    refunds: HashSet<ProviderKey>,
    /// The refund of the last call that was accepted.
    accepted: Option<ProviderKey>,
    next_probe: Instant,
}

impl Refusals {
    pub(super) fn none() -> Self {
        Self {
            calls: 0,
            refunds: HashSet::new(),
            accepted: None,
            next_probe: Instant::now(),
        }
    }

    /// After `most` calls the circuit opens, and one call per interval probes; `true` if it opens now.
    pub(super) fn refused(&mut self, key: &ProviderKey, most: u32, interval: Duration) -> bool {
        let was_open = self.is_open(most);
        self.calls = self.calls.saturating_add(1);
        if self.refunds.len() < SEVERAL {
            self.refunds.insert(key.clone());
        }
        let opens = self.is_open(most) && !was_open;
        if opens {
            self.next_probe = Instant::now() + interval;
        }
        opens
    }

    /// `true` if the circuit was open.
    pub(super) fn accepted(&mut self, key: &ProviderKey, most: u32) -> bool {
        let was_open = self.is_open(most);
        self.accepted = Some(key.clone());
        self.calls = 0;
        self.refunds.clear();
        was_open
    }

    /// Whether only this refund can be at fault: the call before was accepted, and for another refund.
    pub(super) fn are_about(&self, key: &ProviderKey) -> bool {
        self.refunds.is_empty() && self.accepted.as_ref().is_some_and(|other| other != key)
    }

    pub(super) fn are_about_all(&self) -> bool {
        self.refunds.len() >= SEVERAL
    }

    pub(super) fn is_open(&self, most: u32) -> bool {
        self.are_about_all() && self.calls >= most
    }

    /// When the next call may be made, if the circuit is open.
    pub(super) fn next_probe(&self, most: u32) -> Option<Instant> {
        self.is_open(most).then_some(self.next_probe)
    }

    pub(super) fn probe(&mut self, most: u32, interval: Duration) {
        if self.is_open(most) {
            self.next_probe = Instant::now() + interval;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);
    const MOST: u32 = 4;

    fn refuse(refusals: &mut Refusals, key: &str) -> bool {
        refusals.refused(&ProviderKey(key.to_owned()), MOST, INTERVAL)
    }

    fn accept(refusals: &mut Refusals, key: &str) -> bool {
        refusals.accepted(&ProviderKey(key.to_owned()), MOST)
    }

    #[test]
    fn one_refund_alone_is_at_fault_only_after_another_was_accepted() {
        let mut refusals = Refusals::none();
        let key = |key: &str| ProviderKey(key.to_owned());
        assert!(!refusals.are_about(&key("a")), "nothing was accepted yet");
        accept(&mut refusals, "a");
        assert!(!refusals.are_about(&key("a")), "it was accepted itself");
        assert!(refusals.are_about(&key("b")));
        refuse(&mut refusals, "b");
        assert!(!refusals.are_about(&key("b")), "nothing was accepted since");
        accept(&mut refusals, "a");
        assert!(refusals.are_about(&key("b")));
    }

    #[test]
    fn one_refund_is_to_blame_until_several_are_refused_in_a_row() {
        let mut refusals = Refusals::none();
        for _ in 0..20 {
            assert!(!refuse(&mut refusals, "a"));
        }
        assert!(!refuse(&mut refusals, "b"));
        assert!(!refusals.are_about_all());
        accept(&mut refusals, "z");
        for key in ["a", "b", "c"] {
            assert!(!refuse(&mut refusals, key), "too few calls");
        }
        assert!(refusals.are_about_all());
        assert!(refuse(&mut refusals, "a"), "opens");
        assert!(!refuse(&mut refusals, "a"), "is open");
        assert!(refusals.next_probe(MOST).is_some());
        assert!(accept(&mut refusals, "z"));
        assert!(!refusals.are_about_all() && refusals.next_probe(MOST).is_none());
    }
}
