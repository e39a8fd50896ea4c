//! Whether relays are at work, and what they cannot send.

use super::report::{Check, Report};
use crate::session::{CHECK_DEADLINE, Session};
use crate::store::outbox::parked_totals;
use crate::store::shards::{ShardHead, shard_heads, shard_numbers};
use crate::text::{counted, span};
use crate::waiting::Kind;

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
    let parked = session.check("parked_totals", |conn| {
        Box::pin(parked_totals(conn, CHECK_DEADLINE))
    });
    report.add(match parked.await {
        Ok((rows, orders)) => parked_events(rows, orders),
        Err(error) => Check::of_error("parked events", &error),
    });
}

/// Without a relay nothing is published. That is a problem once events wait, or if a relay died.
fn relays(heads: &[ShardHead]) -> Check {
    let name = "relays";
    let wanted: Vec<&ShardHead> = heads.iter().filter(|head| !head.is_paused()).collect();
    let unowned: Vec<&ShardHead> = wanted
        .iter()
        .copied()
        .filter(|head| head.living_owner().is_none())
        .collect();
    let mut owners: Vec<&str> = wanted
        .iter()
        .filter_map(|head| head.living_owner())
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
    } else if unowned.iter().any(|head| head.is_unattended()) {
        let advice = "start an outbox-relay, or see its log: nothing publishes the events of the other shards";
        Check::fail(
            name,
            format!("{found}: {}", shard_numbers(&unowned)),
            advice,
        )
    } else {
        let advice = "start an outbox-relay before events are filed; see `returnsctl outbox stats`";
        Check::warn(name, found, advice)
    }
}

fn oldest(heads: &[ShardHead]) -> Check {
    let name = "waiting events";
    let wanted = heads.iter().filter(|head| !head.is_paused());
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
        format!("{found}; late: {}", shard_numbers(&old)),
        "see docs/OPERATIONS.md, \"Events do not leave the outbox\": `returnsctl outbox stats`, then `outbox peek --shard N`",
    )
}

fn paused(heads: &[ShardHead]) -> Check {
    let name = Kind::PausedShards.title();
    let paused: Vec<&ShardHead> = heads.iter().filter(|head| head.is_paused()).collect();
    if paused.is_empty() {
        return Check::ok(name, "none");
    }
    Check::person(
        name,
        u64::try_from(paused.len()).unwrap_or(u64::MAX),
        shard_numbers(&paused),
        format!(
            "when the reason is gone: `{}`",
            Kind::PausedShards.command()
        ),
    )
}

fn parked_events(rows: i64, orders: i64) -> Check {
    let name = Kind::ParkedEvents.title();
    match rows {
        0 => Check::ok(name, "none"),
        rows => Check::person(
            name,
            orders.unsigned_abs(),
            format!("{} of {}", counted(rows, "event"), counted(orders, "order")),
            format!(
                "see `{}`, then redrive or discard each",
                Kind::ParkedEvents.command()
            ),
        ),
    }
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
            epoch: 7,
            paused_secs: None,
            oldest_age_secs: oldest,
            oldest_topic: None,
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
        pausing.paused_secs = Some(600.0);
        let heads = [pausing, head(Some("a"), Some(8.0), None)];
        let found = [relays(&heads), oldest(&heads), paused(&heads)].map(|check| check.verdict());
        assert_eq!(found, [Ok, Ok, Person]);
    }
}
