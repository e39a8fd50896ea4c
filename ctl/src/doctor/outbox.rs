//! Whether relays are at work, and what they cannot send.

use super::report::{Check, Report};
use crate::session::Session;
use crate::store::outbox::{ShardHead, parked_totals, shard_heads};
use crate::text::{counted, span};

/// The alarm of OPERATIONS.md: a relay sends an event within milliseconds.
const OLD_SECS: f64 = 60.0;
/// Another relay takes the shards of a dead one over within a renewal.
const TAKEN_OVER_SECS: f64 = 30.0;

/// Needs a database that has the schema of this build.
pub(super) async fn examine(session: &Session, report: &mut Report) {
    let heads = session.check("shard_heads", |conn| Box::pin(shard_heads(conn)));
    match heads.await {
        Ok(heads) => {
            for check in [relays(&heads), oldest(&heads), paused(&heads)] {
                report.add(check);
            }
        }
        Err(error) => report.add(Check::of_error("relays", &error)),
    }
    let parked = session.check("parked_totals", |conn| Box::pin(parked_totals(conn)));
    report.add(match parked.await {
        Ok((rows, orders)) => parked_events(rows, orders),
        Err(error) => Check::of_error("parked events", &error),
    });
}

impl ShardHead {
    fn is_owned(&self) -> bool {
        self.lease_left_secs.is_some_and(|left| left > 0.0)
    }

    /// Its relay has died, and none has taken over.
    fn is_abandoned(&self) -> bool {
        self.lease_left_secs
            .is_some_and(|left| left < -TAKEN_OVER_SECS)
    }

    fn is_old(&self) -> bool {
        !self.is_paused && self.oldest_age_secs.is_some_and(|age| age > OLD_SECS)
    }
}

/// Without a relay nothing is published. That is a problem once events wait, or if a relay died.
fn relays(heads: &[ShardHead]) -> Check {
    let name = "relays";
    let wanted: Vec<&ShardHead> = heads.iter().filter(|head| !head.is_paused).collect();
    let unowned: Vec<&ShardHead> = wanted
        .iter()
        .copied()
        .filter(|head| !head.is_owned())
        .collect();
    let mut owners: Vec<&str> = wanted
        .iter()
        .filter(|head| head.is_owned())
        .filter_map(|head| head.owner.as_deref())
        .collect();
    let owned = owners.len();
    owners.sort_unstable();
    owners.dedup();
    let found = format!(
        "{}, {owned} of {} shards have an owner that is alive",
        counted(i64::try_from(owners.len()).unwrap_or(i64::MAX), "relay"),
        wanted.len()
    );
    if unowned.is_empty() {
        Check::ok(name, found)
    } else if unowned
        .iter()
        .any(|head| head.is_abandoned() || head.is_old())
    {
        let advice = "start an outbox-relay, or see its log: nothing publishes the events of the other shards";
        Check::fail(name, format!("{found}: {}", numbers(&unowned)), advice)
    } else {
        let advice = "start an outbox-relay before events are filed; see `returnsctl outbox stats`";
        Check::warn(name, found, advice)
    }
}

fn oldest(heads: &[ShardHead]) -> Check {
    let name = "waiting events";
    let wanted = heads.iter().filter(|head| !head.is_paused);
    let age = wanted
        .filter_map(|head| head.oldest_age_secs)
        .reduce(f64::max);
    let old: Vec<&ShardHead> = heads.iter().filter(|head| head.is_old()).collect();
    let found = age.map_or("none".to_owned(), |age| {
        format!("the oldest is {} old", span(age))
    });
    if old.is_empty() {
        return Check::ok(name, found);
    }
    Check::fail(
        name,
        format!("{found}; late: {}", numbers(&old)),
        "see docs/OPERATIONS.md, \"Events do not leave the outbox\": `returnsctl outbox stats`, then `outbox peek --shard N`",
    )
}

fn paused(heads: &[ShardHead]) -> Check {
    let name = "paused shards";
    let paused: Vec<&ShardHead> = heads.iter().filter(|head| head.is_paused).collect();
    if paused.is_empty() {
        return Check::ok(name, "none");
    }
    Check::person(
        name,
        u64::try_from(paused.len()).unwrap_or(u64::MAX),
        numbers(&paused),
        "when the reason is gone: `returnsctl outbox resume --shard N --by NAME --reason TEXT`",
    )
}

fn parked_events(rows: i64, orders: i64) -> Check {
    let name = "parked events";
    match rows {
        0 => Check::ok(name, "none"),
        rows => Check::person(
            name,
            orders.unsigned_abs(),
            format!("{} of {}", counted(rows, "event"), counted(orders, "order")),
            "see `returnsctl outbox parked`, then redrive or discard each",
        ),
    }
}

/// The shards' numbers, for a person.
fn numbers(heads: &[&ShardHead]) -> String {
    let numbers: Vec<String> = heads.iter().map(|head| head.shard.to_string()).collect();
    let noun = if numbers.len() == 1 {
        "shard"
    } else {
        "shards"
    };
    format!("{noun} {}", numbers.join(", "))
}

#[cfg(test)]
mod tests {
    use shared::domain::ids::Shard;

    use super::*;
    use crate::doctor::report::Verdict::{Fail, Ok, Person, Warn};

    fn head(owner: Option<&str>, left: Option<f64>, oldest: Option<f64>) -> ShardHead {
        ShardHead {
            shard: Shard(3),
            owner: owner.map(str::to_owned),
            lease_left_secs: left,
            is_paused: false,
            oldest_age_secs: oldest,
        }
    }

    #[test]
    fn shards_without_a_living_owner_are_a_problem_once_events_wait_or_a_relay_died() {
        let alive = head(Some("a"), Some(8.0), Some(1.0));
        let stuck = head(Some("a"), Some(8.0), Some(61.0));
        let idle = head(None, None, Some(1.0));
        let waiting = head(None, None, Some(61.0));
        let changing = head(Some("b"), Some(-5.0), None);
        let dead = head(Some("b"), Some(-31.0), None);
        for (heads, verdicts) in [
            (vec![alive.clone(), alive.clone()], [Ok, Ok]),
            (vec![alive.clone(), stuck], [Ok, Fail]),
            (vec![alive.clone(), idle], [Warn, Ok]),
            (vec![alive.clone(), waiting], [Fail, Fail]),
            (vec![alive.clone(), changing], [Warn, Ok]),
            (vec![alive, dead], [Fail, Ok]),
        ] {
            let found = [relays(&heads), oldest(&heads)].map(|check| check.verdict());
            assert_eq!(found, verdicts, "{heads:?}");
        }
    }

    #[test]
    fn a_paused_shard_waits_for_a_person_and_is_late_on_purpose() {
        let mut pausing = head(None, None, Some(600.0));
        pausing.is_paused = true;
        let heads = [pausing, head(Some("a"), Some(8.0), None)];
        let found = [relays(&heads), oldest(&heads), paused(&heads)].map(|check| check.verdict());
        assert_eq!(found, [Ok, Ok, Person]);
    }
}
