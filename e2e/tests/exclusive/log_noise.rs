//! What each program logs of an outage: a line when it begins, one a minute while it lasts, and one when it ends, but none
//! for each failure. Here MySQL is away for longer than a minute; `kafka_away` asks the same of an outage of Kafka.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::program::Program;
use e2e::stack::{Server, control};
use e2e::system::{CUSTOMER, System};
use e2e::until;
use serde_json::Value;

use crate::{EXCLUSIVE, FILERS, Filers, ORDERS_EACH, more_returns};

/// For the line of a minute.
const REMINDED: Duration = Duration::from_secs(100);
/// Some work begins once a minute.
const ENDED: Duration = Duration::from_secs(100);
/// Some kinds of work fail and work again, each with one line; and a consumer's group has rebalances.
const MOST_LINES: usize = 40;

#[tokio::test]
async fn an_outage_is_logged_when_it_begins_and_ends_and_not_for_each_failure() -> anyhow::Result<()>
{
    let _exclusive = EXCLUSIVE.lock().await;
    let system = System::create().await?;
    let orders = FILERS * ORDERS_EACH;
    system.db.seed_orders(1, orders, CUSTOMER).await;
    let api = system.start("returns-api").await?;
    let relay = system.start("outbox-relay").await?;
    let consumer = system.start("refund-consumer").await?;
    let filers = Filers::start(&system.customer, api.api_address()?);
    more_returns(&system, &api, 200).await?;
    let log = OutageLog::of(&[&api, &relay, &consumer]);
    control(Server::Mysql, "stop").await?;
    let reminds = async || {
        let logged = log.logged()?;
        Ok(logged.iter().all(|it| !it.reminded.is_empty()))
    };
    until("every program reminds of the outage", REMINDED, reminds)
        .await
        .with_context(|| format!("{:?}", log.logged()))?;
    control(Server::Mysql, "start").await?;
    more_returns(&system, &api, 200).await?;
    log.has_ended_in_few_lines().await?;
    filers.finish().await;
    system.settled(Duration::from_secs(180)).await
}

/// What a program logged of outages: the kinds of work that began to fail, that still fail after a minute, and that work
/// again.
#[derive(Debug, Default)]
struct Logged {
    begun: BTreeSet<String>,
    reminded: BTreeSet<String>,
    ended: BTreeSet<String>,
    lines: usize,
}

impl Logged {
    /// In its lines after the first `before`.
    fn by(program: &Program, before: usize) -> anyhow::Result<Self> {
        let mut logged = Self::default();
        for line in program.lines_after(before) {
            let record: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
            let message = record["message"].as_str().unwrap_or_default();
            for (end, works) in [
                (" fails; it is tried again", &mut logged.begun),
                (" still fails", &mut logged.reminded),
                (" works again", &mut logged.ended),
            ] {
                works.extend(message.strip_suffix(end).map(str::to_owned));
            }
            logged.lines += 1;
        }
        Ok(logged)
    }
}

/// What these programs log from now on.
pub(crate) struct OutageLog<'a>(Vec<(&'a Program, usize)>);

impl<'a> OutageLog<'a> {
    pub(crate) fn of(programs: &[&'a Program]) -> Self {
        let programs = programs.iter();
        Self(programs.map(|it| (*it, it.lines_written())).collect())
    }

    fn logged(&self) -> anyhow::Result<Vec<Logged>> {
        let programs = self.0.iter();
        programs
            .map(|(program, before)| Logged::by(program, *before))
            .collect()
    }

    /// Waits until all that failed works again by the log. Each program has logged that something failed.
    pub(crate) async fn has_ended_in_few_lines(&self) -> anyhow::Result<()> {
        let has_ended = |it: &Logged| !it.begun.is_empty() && it.ended.is_superset(&it.begun);
        until("every outage has ended in the log", ENDED, async || {
            Ok(self.logged()?.iter().all(has_ended))
        })
        .await
        .with_context(|| format!("{:?}", self.logged()))?;
        for ((program, _), it) in self.0.iter().zip(self.logged()?) {
            let name = program.name();
            eprintln!("{name} wrote {} lines: {it:?}", it.lines);
            ensure!(
                it.reminded.is_subset(&it.begun),
                "{name} reminds of what did not begin"
            );
            ensure!(it.lines <= MOST_LINES, "{name}: {}", program.last_lines());
        }
        Ok(())
    }

    /// These programs have not logged a failure.
    pub(crate) fn has_no_outage(&self) -> anyhow::Result<()> {
        let logged = self.logged()?;
        ensure!(logged.iter().all(|it| it.begun.is_empty()), "{logged:?}");
        Ok(())
    }
}
