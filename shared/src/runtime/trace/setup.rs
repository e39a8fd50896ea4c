//! Where spans go: by OTLP over HTTP, as the standard variables say.

use std::time::Duration;

use clap::Args;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use uuid::Uuid;

use super::export::{Batching, Bounded};
use super::sampler::{SamplerName, sampler};
use super::{TRACER, names};

/// Traces. Without an endpoint none are recorded, and the context of each request is passed on as it came. The other
/// standard variables of OTLP (`OTEL_EXPORTER_OTLP_HEADERS`, `_TIMEOUT`, `_CERTIFICATE`, `OTEL_RESOURCE_ATTRIBUTES`) hold too.
#[derive(Debug, Clone, Args)]
pub struct TraceArgs {
    /// Base URL of an OTLP collector over HTTP, such as `http://collector:4318`. Traces go to its `/v1/traces`.
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        hide_env_values = true,
        value_name = "URL"
    )]
    otel_exporter_otlp_endpoint: Option<String>,

    /// Where traces go, if not to the base URL; used as it is.
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        hide_env_values = true,
        value_name = "URL"
    )]
    otel_exporter_otlp_traces_endpoint: Option<String>,

    /// Turns traces off.
    #[arg(long, env = "OTEL_SDK_DISABLED", value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set)]
    otel_sdk_disabled: bool,

    /// Which traces that begin here are recorded. With `parentbased`, the caller decides about the others.
    #[arg(long, env = "OTEL_TRACES_SAMPLER", value_name = "NAME", value_enum, default_value_t = SamplerName::ParentbasedAlwaysOn)]
    otel_traces_sampler: SamplerName,

    /// The share of traces that the `traceidratio` samplers record, from 0 to 1.
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", value_name = "RATIO", default_value_t = 1.0, value_parser = parse_ratio)]
    otel_traces_sampler_arg: f64,

    /// The name of this service in traces; else the name of the program.
    #[arg(long, env = "OTEL_SERVICE_NAME", value_name = "NAME")]
    otel_service_name: Option<String>,

    /// Spans that may wait for the collector; further ones are lost and counted.
    #[arg(long, env = "OTEL_BSP_MAX_QUEUE_SIZE", value_name = "N", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    otel_bsp_max_queue_size: u32,

    /// Spans in one request to the collector.
    #[arg(long, env = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", value_name = "N", default_value_t = 2_048, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    otel_bsp_max_export_batch_size: u32,

    /// Milliseconds until a batch that is not full is sent.
    #[arg(long, env = "OTEL_BSP_SCHEDULE_DELAY", value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=600_000))]
    otel_bsp_schedule_delay: u32,
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse::<f64>().ok();
    ratio
        .filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

impl TraceArgs {
    /// The URL that traces are posted to. `None`: nothing is recorded.
    fn url(&self) -> Option<String> {
        if self.otel_sdk_disabled {
            return None;
        }
        let given = |url: &Option<String>| url.clone().filter(|url| !url.is_empty());
        given(&self.otel_exporter_otlp_traces_endpoint).or_else(|| {
            let base = given(&self.otel_exporter_otlp_endpoint)?;
            Some(format!("{}/v1/traces", base.trim_end_matches('/')))
        })
    }

    fn batching(&self) -> Batching {
        let size = |setting: u32| usize::try_from(setting).unwrap_or(usize::MAX);
        let queue = size(self.otel_bsp_max_queue_size);
        Batching {
            queue,
            batch: size(self.otel_bsp_max_export_batch_size).min(queue),
            delay: Duration::from_millis(self.otel_bsp_schedule_delay.into()),
        }
    }

    /// Attributes from `OTEL_RESOURCE_ATTRIBUTES` come with the builder.
    fn resource(&self, program: &'static str) -> Resource {
        let name = self.otel_service_name.clone();
        Resource::builder()
            .with_service_name(name.unwrap_or_else(|| program.to_owned()))
            .with_schema_url(
                [
                    KeyValue::new(names::SERVICE_NAMESPACE, "returns"),
                    KeyValue::new(names::SERVICE_VERSION, env!("CARGO_PKG_VERSION")),
                    KeyValue::new(names::SERVICE_INSTANCE_ID, Uuid::now_v7().to_string()),
                ],
                names::SCHEMA_URL,
            )
            .build()
    }
}

/// How long the end of a program waits until the collector has the last spans.
const FLUSH: Duration = Duration::from_secs(2);

/// Sends the last spans when it is dropped. Keep it until `main` ends.
#[derive(Debug)]
pub struct Flush(Option<SdkTracerProvider>);

impl Drop for Flush {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take() {
            // A collector that is away must not keep the program from ending.
            if let Err(error) = provider.shutdown_with_timeout(FLUSH) {
                tracing::warn!(%error, "the last spans did not reach the collector");
            }
        }
    }
}

/// Begins to record the spans of this process; call once, from `main`, outside of tokio. `trusts_callers`: a caller's
/// flag decides whether its trace is recorded.
///
/// # Errors
/// The endpoint is no URL, or the TLS library cannot be set up.
pub fn init(
    args: &TraceArgs,
    program: &'static str,
    trusts_callers: bool,
) -> Result<Flush, String> {
    let Some(url) = args.url() else {
        return Ok(Flush(None));
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(&url)
        .build()
        .map_err(|error| format!("OTEL_EXPORTER_OTLP_ENDPOINT: {error}"))?;
    let provider = SdkTracerProvider::builder()
        .with_resource(args.resource(program))
        .with_sampler(sampler(
            args.otel_traces_sampler,
            args.otel_traces_sampler_arg,
            trusts_callers,
        ))
        .with_span_processor(Bounded::new(exporter, args.batching()))
        .build();
    let scope = InstrumentationScope::builder(program)
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(names::SCHEMA_URL)
        .build();
    TRACER.get_or_init(|| provider.tracer_with_scope(scope));
    Ok(Flush(Some(provider)))
}
