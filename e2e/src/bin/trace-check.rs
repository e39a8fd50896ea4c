//! Reads the traces of a return back from a real Jaeger: `returnsctl trace` must show every span where Jaeger's own pages
//! have it. `make test-jaeger` starts Jaeger and calls this.
#![expect(clippy::print_stdout, reason = "a person reads the output")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use e2e::operator::{as_admin, retry_first_attempt};
use e2e::program::{Program, run};
use e2e::provider::{self, Provider};
use e2e::system::{CUSTOMER, System};
use e2e::until;
use serde_json::Value;
use shared::domain::ids::ReturnId;

const DEADLINE: Duration = Duration::from_secs(120);

/// Refunds a return at the second attempt, and compares what is shown of its two traces.
#[derive(Debug, Parser)]
#[command(name = "trace-check", version)]
struct Args {
    /// Where Jaeger takes spans by OTLP over HTTP.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    otel_exporter_otlp_endpoint: String,

    /// Where Jaeger's pages and its query API are.
    #[arg(long, env = "TRACE_QUERY_URL", value_name = "URL")]
    trace_query_url: String,
}

/// Parent, name, program, begin and length in microseconds, and whether it failed.
type Spans = BTreeMap<String, (Option<String>, String, String, u64, u64, bool)>;

#[tokio::main]
async fn main() -> ExitCode {
    match check(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("trace-check: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn check(args: &Args) -> anyhow::Result<()> {
    let mut system = System::create().await?;
    for (name, value) in [
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            &args.otel_exporter_otlp_endpoint,
        ),
        ("TRACE_QUERY_URL", &args.trace_query_url),
    ] {
        system.env.insert(name.to_owned(), value.clone());
    }
    let provider = Provider::start(&mut system, &[]).await?;
    system.db.seed_orders(1, 1, CUSTOMER).await;
    let id = refund_at_the_second_attempt(&system, &provider).await?;

    let id = id.to_string();
    print!("{}", run("returnsctl", &["trace", &id], &system.env).await?);
    let shown = run("returnsctl", &["trace", &id, "--json"], &system.env).await?;
    let shown: Value = serde_json::from_str(&shown)?;
    let traces = shown["traces"].as_array().context("a list of traces")?;
    ensure!(traces.len() == 2, "two traces: {shown}");
    let mut count = 0;
    for trace in traces {
        let trace_id = trace["trace_id"].as_str().context("an id")?;
        ensure!(trace["source"] == "backend", "from Jaeger: {trace}");
        let (ours, theirs) = (of_returnsctl(trace)?, of_jaeger(args, trace_id).await?);
        ensure!(ours == theirs, "returnsctl: {ours:#?}\nJaeger: {theirs:#?}");
        count += ours.len();
    }
    println!("\nreturnsctl and Jaeger show the same {count} spans.");
    Ok(())
}

/// All programs have ended afterwards, so they have sent their spans.
async fn refund_at_the_second_attempt(system: &System, provider: &Provider) -> anyhow::Result<i64> {
    let api = system.start("returns-api").await?;
    let filed = system.customer.file(api.api_address()?, 1, None).await?;
    let id = filed.return_id().context("a 201")?;
    let key = provider::key(system, ReturnId(id), 1).await?;
    provider.script(&key, &["decline"], &[]).await?;
    let programs = [
        api,
        system.start("outbox-relay").await?,
        system.start("refund-consumer").await?,
    ];
    until("declined", DEADLINE, async || {
        let failed = "SELECT COUNT(*) FROM returns WHERE status = 'refund_failed'";
        Ok(system.count(failed).await? == 1)
    })
    .await?;
    retry_first_attempt(&as_admin(&system.env, "7").await?, id).await?;
    system.settled(DEADLINE).await?;
    for program in programs {
        Program::stop(program, DEADLINE).await?;
    }
    Ok(id)
}

fn of_returnsctl(trace: &Value) -> anyhow::Result<Spans> {
    let spans = trace["spans"].as_array().context("a list of spans")?.iter();
    let read = |span: &Value| {
        let nanos = |field: &str| span[field].as_str()?.parse::<u64>().ok();
        let (began, ended) = (nanos("start_time_unix_nano")?, nanos("end_time_unix_nano")?);
        let text = |field: &str| span[field].as_str().map(str::to_owned);
        let (name, service) = (text("name")?, text("service")?);
        let failed = span["failed"].as_bool()?;
        let took = (ended - began) / 1_000;
        Some((
            text("span_id")?,
            (text("parent"), name, service, began / 1_000, took, failed),
        ))
    };
    spans
        .map(|span| read(span).with_context(|| span.to_string()))
        .collect()
}

/// From the API that Jaeger's pages use, which is another one and has another form.
async fn of_jaeger(args: &Args, trace_id: &str) -> anyhow::Result<Spans> {
    let url = format!("{}/api/traces/{trace_id}", args.trace_query_url);
    let answer: Value = reqwest::get(url).await?.json().await?;
    let trace = &answer["data"][0];
    let spans = trace["spans"]
        .as_array()
        .with_context(|| answer.to_string())?
        .iter();
    let read = |span: &Value| {
        let process = span["processID"].as_str()?;
        let service = trace["processes"][process]["serviceName"].as_str()?;
        // A parent that a link leads to as well is listed as `FOLLOWS_FROM`, and first.
        let is_here = |one: &&Value| one["traceID"] == trace_id;
        let parent = span["references"].as_array()?.iter().find(is_here);
        let parent = parent.and_then(|one| one["spanID"].as_str());
        let is_error = |tag: &Value| tag["key"] == "error" && tag["value"] == true;
        let name = span["operationName"].as_str()?;
        let times = (span["startTime"].as_u64()?, span["duration"].as_u64()?);
        let failed = span["tags"].as_array()?.iter().any(is_error);
        let id = span["spanID"].as_str()?.to_owned();
        let place = (
            parent.map(str::to_owned),
            name.to_owned(),
            service.to_owned(),
        );
        Some((id, (place.0, place.1, place.2, times.0, times.1, failed)))
    };
    spans
        .map(|span| read(span).with_context(|| span.to_string()))
        .collect()
}
