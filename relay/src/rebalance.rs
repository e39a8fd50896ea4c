//! Which shards a relay should acquire and hand over, so that all live relays own equal shares.

use shared::domain::ids::Shard;

use crate::store::lease::LeaseRow;

/// What a relay should change about the shards that it owns.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Rebalance {
    pub(crate) acquire: Vec<Shard>,
    pub(crate) hand_over: Vec<Shard>,
    /// Before it acquires anything, the relay owns less than its share.
    pub(crate) is_below_share: bool,
}

impl Rebalance {
    /// Divides the shards by the number of live relays; the first relays by id get the remainder, so the shares add up.
    /// Paused shards count for no share, and their owner hands them over.
    pub(crate) fn fair_share(leases: &[LeaseRow], live_relays: &[String], owner: &str) -> Self {
        let relays = live_relays.len().max(1);
        let rank = live_relays.iter().position(|id| id == owner).unwrap_or(0);
        let (paused, active): (Vec<&LeaseRow>, Vec<&LeaseRow>) =
            leases.iter().partition(|lease| lease.paused);
        let share = active.len() / relays + usize::from(rank < active.len() % relays);
        let is_ours = |lease: &&&LeaseRow| lease.owner.as_deref() == Some(owner);
        let shard = |lease: &&LeaseRow| lease.shard;
        let ours: Vec<Shard> = active.iter().filter(is_ours).map(shard).collect();
        let free = active
            .iter()
            .filter(|lease| lease.owner.is_none() || (lease.expired && !is_ours(lease)))
            .map(shard);
        let acquire = free.take(share.saturating_sub(ours.len())).collect();
        let is_below_share = ours.len() < share;
        let above_share = ours.into_iter().skip(share);
        Self {
            acquire,
            is_below_share,
            hand_over: above_share
                .chain(paused.iter().filter(is_ours).map(shard))
                .collect(),
        }
    }

    /// A relay that stops hands over every shard and acquires none.
    pub(crate) fn leaving(leases: &[LeaseRow], owner: &str) -> Self {
        let ours = leases
            .iter()
            .filter(|lease| lease.owner.as_deref() == Some(owner));
        Self {
            acquire: Vec::new(),
            hand_over: ours.map(|lease| lease.shard).collect(),
            is_below_share: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leases(owners: &[Option<&str>], expired: &[usize]) -> Vec<LeaseRow> {
        let lease = |(n, owner): (usize, &Option<&str>)| LeaseRow {
            shard: Shard(u8::try_from(n).expect("few")),
            owner: owner.map(str::to_owned),
            epoch: 1,
            expired: expired.contains(&n),
            redrive_gen: 0,
            paused: false,
        };
        owners.iter().enumerate().map(lease).collect()
    }

    fn live(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|&id| id.to_owned()).collect()
    }

    fn shards(ids: &[u8]) -> Vec<Shard> {
        ids.iter().copied().map(Shard).collect()
    }

    #[test]
    fn a_single_relay_acquires_every_free_shard() {
        let all = leases(&[None, None, Some("b"), Some("b")], &[2]);
        let rebalance = Rebalance::fair_share(&all, &live(&["a"]), "a");
        assert_eq!(rebalance.acquire, shards(&[0, 1, 2]), "b still owns 3");
    }

    #[test]
    fn shards_above_the_share_are_handed_over_and_only_free_shards_are_acquired() {
        let all = leases(&[Some("a"); 5], &[]);
        let both = live(&["a", "b"]);
        assert_eq!(
            Rebalance::fair_share(&all, &both, "a"),
            Rebalance {
                hand_over: shards(&[3, 4]),
                ..Rebalance::default()
            }
        );
        let waits = Rebalance {
            is_below_share: true,
            ..Rebalance::default()
        };
        assert_eq!(Rebalance::fair_share(&all, &both, "b"), waits);
    }

    #[test]
    fn shares_add_up_for_any_number_of_relays() {
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        let all = leases(&[None; 16], &[]);
        for count in 1..=names.len() {
            let live = live(&names[..count]);
            let acquired = |owner: &String| Rebalance::fair_share(&all, &live, owner).acquire.len();
            assert_eq!(
                live.iter().map(acquired).sum::<usize>(),
                16,
                "{count} relays"
            );
        }
    }

    #[test]
    fn our_own_expired_lease_is_renewed_and_not_acquired_again() {
        let all = leases(&[Some("a"), Some("a")], &[0, 1]);
        let rebalance = Rebalance::fair_share(&all, &live(&["a"]), "a");
        assert_eq!(rebalance, Rebalance::default());
    }

    #[test]
    fn a_relay_that_stops_hands_over_its_own_shards_and_acquires_none() {
        let all = leases(&[Some("a"), Some("b"), None, Some("a")], &[1]);
        let expected = Rebalance {
            hand_over: shards(&[0, 3]),
            ..Rebalance::default()
        };
        assert_eq!(Rebalance::leaving(&all, "a"), expected);
    }

    #[test]
    fn a_paused_shard_is_handed_over_and_no_relay_acquires_it() {
        let mut all = leases(&[Some("a"), None, Some("dead"), None], &[2]);
        all[0].paused = true;
        all[1].paused = true;
        let expected = Rebalance {
            acquire: shards(&[2, 3]),
            hand_over: shards(&[0]),
            is_below_share: true,
        };
        assert_eq!(Rebalance::fair_share(&all, &live(&["a"]), "a"), expected);
        all[2].paused = true;
        let rebalance = Rebalance::fair_share(&all, &live(&["b"]), "b");
        assert_eq!(rebalance.acquire, shards(&[3]));
    }

    #[test]
    fn a_share_is_a_share_of_the_shards_that_are_not_paused() {
        let mut all = leases(&[Some("a"); 6], &[]);
        for lease in &mut all[..4] {
            lease.paused = true;
        }
        let rebalance = Rebalance::fair_share(&all, &live(&["a", "b"]), "a");
        assert_eq!(
            rebalance.hand_over,
            shards(&[5, 0, 1, 2, 3]),
            "one of the two active shards stays"
        );
    }
}
