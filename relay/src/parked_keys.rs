//! Message keys with parked rows. A later event of such a key is parked too: Kafka must not get it before the parked one. An
//! earlier event of the same return is sent: it may be in flight in another partition while the later one is refused.

use std::collections::HashMap;

use shared::domain::ids::ReturnId;

/// For each key the returns that have parked rows, each with its lowest parked `seq`.
#[derive(Debug, Default)]
pub(crate) struct ParkedKeys(HashMap<String, HashMap<ReturnId, i32>>);

impl ParkedKeys {
    pub(crate) fn insert(&mut self, msg_key: &str, return_id: ReturnId, seq: i32) {
        let returns = self.0.entry(msg_key.to_owned()).or_default();
        let lowest = returns.entry(return_id).or_insert(seq);
        *lowest = seq.min(*lowest);
    }

    /// Whether an event comes after a parked one. Of two returns of one order nothing is known, so the answer is yes.
    pub(crate) fn holds(&self, msg_key: &str, return_id: ReturnId, seq: i32) -> bool {
        let Some(returns) = self.0.get(msg_key) else {
            return false;
        };
        let lowest = returns.get(&return_id);
        lowest.is_none_or(|lowest| seq >= *lowest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_earlier_events_of_the_same_return_are_sent() {
        let mut parked = ParkedKeys::default();
        parked.insert("20", ReturnId(1), 3);
        parked.insert("20", ReturnId(1), 2);
        assert!(!parked.holds("20", ReturnId(1), 1));
        assert!(parked.holds("20", ReturnId(1), 2) && parked.holds("20", ReturnId(1), 4));
        assert!(parked.holds("20", ReturnId(2), 1), "another return");
        assert!(!parked.holds("21", ReturnId(1), 9), "another order");
    }
}
