//! An outage of Kafka and one of MySQL: each program logs it when it begins and when it ends, not for each failure.

use std::time::Duration;

use e2e::program::Program;
use e2e::stack::{Server, control};
use e2e::system::{CUSTOMER, System};

use crate::{EXCLUSIVE, FILERS, Filers, ORDERS_EACH, more_returns};

const OUTAGE: Duration = Duration::from_secs(20);
/// Some kinds of work fail and work again, each with one line; and a consumer's group has rebalances.
const MOST_LINES: usize = 24;

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
    let programs = [&api, &relay, &consumer];
    more_returns(&system, &api, 200).await?;
    let kafka = lines_of_outage(Server::Kafka, &system, &programs).await?;
    let mysql = lines_of_outage(Server::Mysql, &system, &programs).await?;
    filers.finish().await;
    system.settled(Duration::from_secs(180)).await?;
    eprintln!("lines of api, relay, consumer: Kafka away {kafka:?}, MySQL away {mysql:?}");
    for (program, lines) in programs.iter().zip(kafka).chain(programs.iter().zip(mysql)) {
        let (name, last) = (program.name(), program.last_lines());
        assert!(
            lines <= MOST_LINES,
            "{name}: {lines} lines; the last ones: {last}"
        );
    }
    Ok(())
}

/// How many lines each program writes from the beginning of an outage until returns are filed after it.
async fn lines_of_outage(
    server: Server,
    system: &System,
    programs: &[&Program; 3],
) -> anyhow::Result<[usize; 3]> {
    let before = programs.map(Program::lines_written);
    control(server, "stop").await?;
    tokio::time::sleep(OUTAGE).await;
    control(server, "start").await?;
    more_returns(system, programs[0], 200).await?;
    let after = programs.map(Program::lines_written);
    Ok(std::array::from_fn(|n| after[n] - before[n]))
}
