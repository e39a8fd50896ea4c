//! An outage of Kafka and one of MySQL: each program logs it when it begins, once a minute while it lasts, and when it ends,
//! and not for each failure.

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
    let before = api.lines_written();
    outage(Server::Kafka, &system, &[&relay, &consumer], &api).await?;
    let logged = Logged::by(&api, before)?;
    ensure!(logged.begun.is_empty(), "the api has no Kafka: {logged:?}");
    outage(Server::Mysql, &system, &[&api, &relay, &consumer], &api).await?;
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

/// Stops the server until each of these programs has logged that its outage lasts, and checks what they log.
async fn outage(
    server: Server,
    system: &System,
    programs: &[&Program],
    api: &Program,
) -> anyhow::Result<()> {
    let before: Vec<usize> = programs.iter().map(|it| it.lines_written()).collect();
    let logged = || {
        let both = programs.iter().zip(&before);
        both.map(|(program, before)| Logged::by(program, *before))
            .collect::<anyhow::Result<Vec<_>>>()
    };
    control(server, "stop").await?;
    until(
        "every program reminds of the outage",
        REMINDED,
        async || Ok(logged()?.iter().all(|it| !it.reminded.is_empty())),
    )
    .await
    .with_context(|| format!("{server:?} is away: {:?}", logged()))?;
    control(server, "start").await?;
    more_returns(system, api, 200).await?;
    until("every outage has ended in the log", ENDED, async || {
        Ok(logged()?.iter().all(|it| it.ended.is_superset(&it.begun)))
    })
    .await
    .with_context(|| format!("{server:?} is back: {:?}", logged()))?;
    for (program, it) in programs.iter().zip(logged()?) {
        let name = program.name();
        eprintln!(
            "{server:?} was away: {name} wrote {} lines: {it:?}",
            it.lines
        );
        ensure!(!it.begun.is_empty(), "{name} logs no begin");
        ensure!(
            it.reminded.is_subset(&it.begun),
            "{name} reminds of what did not begin"
        );
        ensure!(it.lines <= MOST_LINES, "{name}: {}", program.last_lines());
    }
    Ok(())
}
