//! Each query of deploy/ finds what the programs really write: Prometheus scrapes a system in which something of each kind
//! has gone wrong, and runs every expression of the dashboards and of the rules.
//!
//! A metric or label that is misspelled is no error in PromQL: the panel stays empty, and the alert silent.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::program::Program;
use e2e::prometheus::{Prometheus, Series};
use e2e::system::{CUSTOMER, System};
use e2e::until;
use serde_json::Value;
use shared::test_support::mysql_proxy::MysqlProxy;
use shared::test_support::promql;
use sqlx::Executor;

const DEADLINE: Duration = Duration::from_secs(60);
/// Between two scrapes.
const SECONDS: Option<u32> = Some(2);

/// An expression, and how it is used.
struct Query {
    place: String,
    expression: String,
    /// As in `{{status}}: {{reason}}`. `None`: a rule, which may be false.
    legend: Option<String>,
}

#[tokio::test]
async fn every_query_of_the_dashboards_and_the_rules_finds_its_series() -> anyhow::Result<()> {
    let mut system = System::create().await?;
    system.db.seed_orders(1, 10, CUSTOMER).await;
    let (proxy, url) = MysqlProxy::before(system.db.url()).await;
    system.env.insert("DATABASE_URL".to_owned(), url);
    let api = system.start("returns-api").await?;
    let relay = system.start("outbox-relay").await?;
    // The events that the consumer writes wait for a topic that does not exist.
    let missing = format!("{}.missing", system.topics[1]);
    let missing = [("TOPIC_STATUS", missing.as_str())];
    let consumer = system.start_with("refund-consumer", &missing).await?;
    let targets = [
        ("returns-api", api.ops_address()?),
        ("outbox-relay", relay.ops_address()?),
        ("refund-consumer", consumer.ops_address()?),
    ];
    let prometheus = Prometheus::start(&targets, SECONDS).await?;
    work(&system, &api, 1..=5).await?;
    trouble(&system, &api, &proxy).await?;
    work(&system, &api, 6..=10).await?;

    let mut queries = queries_of_dashboards()?;
    let rules = prometheus.rules().await?.into_iter();
    queries.extend(rules.map(|(name, expression)| Query {
        place: format!("rule {name}"),
        expression,
        legend: None,
    }));
    ensure!(queries.len() > 100, "{} queries were found", queries.len());
    // A rate needs two scrapes, and the slowest rules run every ten seconds.
    let mut left: Vec<(&Query, String)> = queries.iter().map(|it| (it, String::new())).collect();
    let found = until("every query finds its series", DEADLINE, async || {
        let mut still = Vec::new();
        for (query, _) in &left {
            if let Some(problem) = problem(&prometheus, query).await? {
                still.push((*query, problem));
            }
        }
        left = still;
        Ok(left.is_empty())
    })
    .await;
    let left = left
        .iter()
        .map(|(query, problem)| format!("\n{}: {problem}", query.place));
    found.with_context(|| left.collect::<String>())
}

/// Files a return for each order; waits until all are refunded.
async fn work(
    system: &System,
    api: &Program,
    orders: std::ops::RangeInclusive<i64>,
) -> anyhow::Result<()> {
    let address = api.api_address()?;
    for order in orders {
        let answer = system.customer.file(address, order, None).await?;
        ensure!(answer.status == 201, "{answer:?}");
    }
    let open = "SELECT COUNT(*) FROM returns WHERE status <> 'refunded'";
    until("every return refunded", DEADLINE, async || {
        Ok(system.count(open).await? == 0)
    })
    .await
}

/// A record that nobody can read, a statement that MySQL refuses, and no MySQL at all.
async fn trouble(system: &System, api: &Program, proxy: &MysqlProxy) -> anyhow::Result<()> {
    system.poison(0).await?;
    let pool = &system.db.pool;
    pool.execute("RENAME TABLE revoked_tokens TO hidden")
        .await?;
    let refused = "db_client_errors_total";
    until("MySQL refuses a statement", DEADLINE, async || {
        Ok(api.metric_if_any(refused).await? > Some(0))
    })
    .await?;
    pool.execute("RENAME TABLE hidden TO revoked_tokens")
        .await?;
    proxy.go_away();
    until("a filing fails", DEADLINE, async || {
        let answer = system.customer.file(api.api_address()?, 1, None).await?;
        Ok(answer.status == 503)
    })
    .await?;
    proxy.come_back();
    until("filing works", DEADLINE, async || {
        let answer = system.customer.file(api.api_address()?, 1, None).await?;
        Ok(answer.status != 503)
    })
    .await
}

fn queries_of_dashboards() -> anyhow::Result<Vec<Query>> {
    let folder = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../deploy/grafana/dashboards"
    ));
    let mut queries = Vec::new();
    for file in fs::read_dir(folder)? {
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(file?.path())?)?;
        for panel in dashboard["panels"].as_array().context("panels")? {
            for query in panel["targets"].as_array().context("queries")? {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                queries.push(Query {
                    place: format!("{}, {}", dashboard["uid"], panel["title"]),
                    // Grafana puts in at least four times the time between two scrapes.
                    expression: text(&query["expr"]).replace("$__rate_interval", "1m"),
                    legend: Some(text(&query["legendFormat"])),
                });
            }
        }
    }
    Ok(queries)
}

/// Why a query is useless, if it is.
async fn problem(prometheus: &Prometheus, query: &Query) -> anyhow::Result<Option<String>> {
    let expression = &query.expression;
    let result = match prometheus.query(expression).await {
        Ok(result) => result,
        Err(error) => return Ok(Some(format!("{error}: {expression}"))),
    };
    let (selectors, grouped) = promql::read(expression);
    let mut selected = Vec::new();
    for selector in &selectors {
        let found = prometheus.query(&selector.text).await?;
        if found.is_empty() {
            return Ok(Some(format!("no series {}", selector.text)));
        }
        selected.extend(found);
    }
    let unknown = grouped.iter().find(|label| !any_has(&selected, label));
    if let Some(label) = unknown {
        return Ok(Some(format!("no series has {label}: {expression}")));
    }
    let Some(legend) = &query.legend else {
        return Ok(None);
    };
    if result.is_empty() {
        return Ok(Some(format!("no result: {expression}")));
    }
    let mut shown = legend
        .split("{{")
        .skip(1)
        .filter_map(|rest| rest.split("}}").next());
    let absent = shown.find(|label| !any_has(&result, label));
    Ok(absent.map(|label| format!("no result has {label}: {expression}")))
}

fn any_has(series: &[Series], label: &str) -> bool {
    series.iter().any(|one| one.contains_key(label))
}
