//! One api writes to a mistyped topic, while others file and pay: only its own returns wait, and a person sends them on.

use std::time::Duration;

use anyhow::ensure;
use e2e::program::{Program, run};
use e2e::system::{CUSTOMER, System};
use e2e::{checks, until};

const GOOD: i64 = 300;
const BAD: i64 = 30;
const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn p2_p3_p4_p5_returns_filed_under_a_mistyped_topic_hold_up_no_other_and_are_paid_when_moved()
-> anyhow::Result<()> {
    let system = System::create().await?;
    system.db.seed_orders(1, GOOD + BAD, CUSTOMER).await;
    let mistyped = format!("{}.mistyped", system.topics[0]);
    let api = system.start("returns-api").await?;
    let wrong = system
        .start_with("returns-api", &[("TOPIC_RETURNS", &mistyped)])
        .await?;
    let relay = system.start("outbox-relay").await?;
    // No scan finds the messages that wait: only Kafka leads to a refund.
    let _consumer = system
        .start_with("refund-consumer", &[("INITIATED_GRACE_SECS", "3600")])
        .await?;
    file(&system, &wrong, GOOD + 1..=GOOD + BAD / 2).await?;
    let load = file(&system, &api, 1..=GOOD);
    let more = file(&system, &wrong, GOOD + BAD / 2 + 1..=GOOD + BAD);
    tokio::try_join!(load, more)?;
    let open = "SELECT COUNT(*) FROM returns WHERE status <> 'refunded'";
    until("all others are refunded", DEADLINE, async || {
        let waiting = system.count("SELECT COUNT(*) FROM outbox").await?;
        Ok(system.count(open).await? == BAD && waiting == BAD)
    })
    .await?;
    let ready = relay.ops_page("/readyz?verbose").await?;
    ensure!(ready.contains(&mistyped), "{ready}");
    let topics = run("returnsctl", &["outbox", "topics", "--json"], &system.env).await?;
    ensure!(topics.contains(&mistyped), "{topics}");

    let who = ["--by", "j.doe", "--reason", "mistyped"];
    for command in [
        &["outbox", "park", "--topic", &mistyped][..],
        &[
            "outbox",
            "move",
            "--topic",
            &mistyped,
            "--to",
            &system.topics[0],
        ],
        &["outbox", "redrive", "--all"],
    ] {
        run("returnsctl", &[command, &who].concat(), &system.env).await?;
    }
    system.settled(DEADLINE).await?;
    until("nothing is in trouble", DEADLINE, async || {
        Ok(relay.metric("outbox_relay_blocked").await? == 0)
    })
    .await?;
    checks::everything(&system).await?;
    checks::straight_paths(&system).await
}

async fn file(
    system: &System,
    api: &Program,
    orders: std::ops::RangeInclusive<i64>,
) -> anyhow::Result<()> {
    for order in orders {
        let answer = system
            .customer
            .file(api.api_address()?, order, None)
            .await?;
        ensure!(answer.status == 201, "{answer:?}");
    }
    Ok(())
}

/// Every program refuses a name that Kafka would refuse, before it opens anything.
#[tokio::test]
async fn an_illegal_topic_name_ends_every_program_with_64() -> anyhow::Result<()> {
    let system = System::create().await?;
    let long = "t".repeat(300);
    for name in ["order returns", "..", &long] {
        let mut env = system.env.clone();
        env.insert("TOPIC_RETURNS".to_owned(), name.to_owned());
        for (program, args) in [
            ("returns-api", &[][..]),
            ("refund-consumer", &[]),
            ("returnsctl", &["topics"]),
            ("returnsctl", &["doctor"]),
        ] {
            let ended = e2e::program::run_to_end(program, args, &env).await?;
            let (code, text) = (ended.status.code(), &ended.stderr);
            ensure!(
                code == Some(64),
                "{program} {args:?} {name}: {code:?} {text}"
            );
            ensure!(text.contains("TOPIC_RETURNS"), "{program}: {text}");
        }
    }
    Ok(())
}
