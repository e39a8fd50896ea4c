//! Whether the audit trail of each return is there. The newest returns are checked one by one, older ones by samples.

use std::collections::BTreeMap;

use super::report::{Check, Report};
use crate::error::CtlError;
use crate::session::Session;
use crate::store::trails::{Trail, last_return, trails};
use crate::text::counted;

const NEWEST: u32 = 1_000;
/// Evenly over all ids.
const SAMPLES: i64 = 20;
const PER_SAMPLE: u32 = 50;
/// Enough to look at.
const NAMED: usize = 5;

/// Needs a database that has the schema of this build.
pub(super) async fn examine(session: &Session, report: &mut Report) {
    let found = read(session).await;
    report.add(found.map_or_else(
        |error| Check::of_error("audit trail", &error),
        |trails| check(&trails),
    ));
}

async fn read(session: &Session) -> Result<Vec<Trail>, CtlError> {
    let last = session.check("last_return", |conn| Box::pin(last_return(conn)));
    let last = last.await?;
    let samples = (1..SAMPLES).map(|sample| (last / SAMPLES * sample, PER_SAMPLE));
    let mut found = BTreeMap::new();
    for (up_to, limit) in samples.chain([(last, NEWEST)]) {
        let part = session.check("trails", move |conn| Box::pin(trails(conn, up_to, limit)));
        let part = part.await?.into_iter();
        found.extend(part.map(|trail| (trail.return_id, trail)));
    }
    Ok(found.into_values().collect())
}

fn check(trails: &[Trail]) -> Check {
    let name = "audit trail";
    let broken: Vec<&Trail> = trails.iter().filter(|trail| !trail.is_whole()).collect();
    let checked = format!(
        "{} checked (the newest {NEWEST}, and samples of older ones)",
        counted(i64::try_from(trails.len()).unwrap_or(i64::MAX), "return")
    );
    if broken.is_empty() {
        return Check::ok(name, format!("{checked}: each has all of its events"));
    }
    let named = broken.iter().take(NAMED).map(|trail| {
        let (id, version) = (trail.return_id, trail.version);
        format!("return {id} has {} of {version}", trail.present)
    });
    let named: Vec<String> = named.collect();
    Check::fail(
        name,
        format!(
            "{checked}: {} lack events; {}",
            broken.len(),
            named.join(", ")
        ),
        "rows of return_events were deleted: restore them from a backup; these returns do not move until then",
    )
}

#[cfg(test)]
mod tests {
    use shared::domain::ids::ReturnId;

    use super::*;
    use crate::doctor::report::Verdict;

    #[test]
    fn a_return_without_all_of_its_events_is_a_problem() {
        let trail = |present| Trail {
            return_id: ReturnId(7),
            version: 2,
            present,
        };
        for (present, verdict) in [(2, Verdict::Ok), (1, Verdict::Fail), (0, Verdict::Fail)] {
            assert_eq!(check(&[trail(present)]).verdict(), verdict, "{present}");
        }
        assert_eq!(check(&[]).verdict(), Verdict::Ok);
    }
}
