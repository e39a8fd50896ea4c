//! Who decides whether a trace is recorded: the api, once, for every program.

use e2e::program::Program;
use reqwest::Client;
use serde_json::json;
use shared::domain::trace_context::TraceContext;

use super::{DEADLINE, Traced};

const SAMPLED: u8 = 1;
const UNSAMPLED: u8 = 0;

/// What a caller sends.
fn caller(flags: u8) -> TraceContext {
    TraceContext::new(
        0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
        0x00f0_67aa_0ba9_02b7,
        flags,
    )
}

impl Traced {
    /// Files a return for order 1 within the caller's trace.
    async fn file_within(&self, api: &Program, caller: &TraceContext) -> anyhow::Result<()> {
        let filed = Client::new()
            .post(format!("http://{}/returns", api.api_address()?))
            .bearer_auth(self.token("42", "customer").await?)
            .header("traceparent", caller.traceparent())
            .header("tracestate", "vendor=1")
            .json(&json!({"order_id": 1}))
            .send()
            .await?;
        assert_eq!(filed.status(), 201);
        Ok(())
    }

    /// Trace and flags of each event of order 1.
    async fn stored(&self) -> anyhow::Result<Vec<(String, u8)>> {
        let stored = sqlx::query_as(
            "SELECT e.trace_id, e.trace_flags FROM return_events AS e JOIN returns AS r ON r.id = e.return_id \
             WHERE r.order_id = 1 ORDER BY e.seq",
        );
        Ok(stored.fetch_all(&self.system.db.pool).await?)
    }
}

#[tokio::test]
async fn an_unsampled_trace_of_a_trusted_caller_stays_unsampled_to_the_end() -> anyhow::Result<()> {
    let mut traced = Traced::create(2).await?;
    traced.set(&[("TRUST_SAMPLED_FLAG", "true")]);
    let api = traced.start("returns-api").await?;
    let _relay = traced.start("outbox-relay").await?;
    let _consumer = traced.start("refund-consumer").await?;
    let given = caller(UNSAMPLED);
    traced.file_within(&api, &given).await?;
    let (_, sampled) = traced.file(&api, 2).await?;
    traced.system.settled(DEADLINE).await?;
    traced.span(&sampled, "refund").await?;
    let of_given = traced.collector.trace(given.trace_id());
    assert!(of_given.is_empty(), "{of_given:?}");
    let expected = vec![(given.trace_id().to_owned(), UNSAMPLED); 4];
    assert_eq!(traced.stored().await?, expected);
    Ok(())
}

#[tokio::test]
async fn a_caller_that_is_not_trusted_cannot_prevent_that_its_trace_is_recorded()
-> anyhow::Result<()> {
    let traced = Traced::create(1).await?;
    let api = traced.start("returns-api").await?;
    let _relay = traced.start("outbox-relay").await?;
    let _consumer = traced.start("refund-consumer").await?;
    let given = caller(UNSAMPLED);
    traced.file_within(&api, &given).await?;
    traced.system.settled(DEADLINE).await?;
    let server = traced.span(given.trace_id(), "POST /returns").await?;
    assert_eq!(server.parent.as_deref(), Some(given.span_id()));
    traced.span(given.trace_id(), "refund").await?;
    let expected = vec![(given.trace_id().to_owned(), SAMPLED); 4];
    assert_eq!(traced.stored().await?, expected);
    Ok(())
}

/// The relay and the consumer record every trace that begins there, but this one has been decided about.
#[tokio::test]
async fn what_the_api_does_not_record_nobody_records() -> anyhow::Result<()> {
    let traced = Traced::create(1).await?;
    let none = [
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0"),
    ];
    let api = traced.system.start_with("returns-api", &none).await?;
    let always = [("OTEL_TRACES_SAMPLER", "always_on")];
    let relay = traced.system.start_with("outbox-relay", &always).await?;
    let consumer = traced.system.start_with("refund-consumer", &always).await?;
    let given = caller(SAMPLED);
    traced.file_within(&api, &given).await?;
    traced.system.settled(DEADLINE).await?;
    for program in [api, relay, consumer] {
        program.stop(DEADLINE).await?;
    }
    let spans = traced.collector.spans();
    assert!(spans.is_empty(), "{spans:?}");
    let expected = vec![(given.trace_id().to_owned(), UNSAMPLED); 4];
    assert_eq!(traced.stored().await?, expected);
    Ok(())
}

#[tokio::test]
async fn a_program_that_is_always_off_records_nothing() -> anyhow::Result<()> {
    let traced = Traced::create(1).await?;
    let api = traced.start("returns-api").await?;
    let off = [("OTEL_TRACES_SAMPLER", "always_off")];
    let relay = traced.system.start_with("outbox-relay", &off).await?;
    let consumer = traced.start("refund-consumer").await?;
    let (_, trace_id) = traced.file(&api, 1).await?;
    traced.span(&trace_id, "outbox.write").await?;
    traced.system.settled(DEADLINE).await?;
    for program in [relay, consumer] {
        program.stop(DEADLINE).await?;
    }
    let spans = traced.collector.spans();
    let services = spans.iter().map(|span| span.service.as_str());
    let others: Vec<&str> = services.filter(|name| *name != "returns-api").collect();
    assert!(others.is_empty(), "{others:?}");
    Ok(())
}
