//! Where spans go: by OTLP over HTTP, as the standard variables say.

use std::time::Duration;

use clap::Args;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use reqwest::Url;
use uuid::Uuid;

use super::export::{Batching, Bounded};
use super::sampler::{Decider, SamplerName};
use super::standard::{Standard, boolean, number_in, ratio, sampler_name, standard};
use super::{TRACER, names};
use crate::runtime::shutdown;

const DISABLED: &str = "false";
const SAMPLER: &str = "parentbased_always_on";
const RATIO: &str = "1";
const QUEUE: &str = "16384";
const BATCH: &str = "2048";
const DELAY: &str = "1000";

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

    /// `true` turns traces off.
    #[arg(long, env = "OTEL_SDK_DISABLED", value_name = "BOOL", default_value = DISABLED, value_parser = standard(DISABLED, boolean))]
    otel_sdk_disabled: Standard<bool>,

    /// Which traces that begin here are recorded: `always_on`, `always_off`, `traceidratio`, or the same with `parentbased_`
    /// before it, so that the caller decides about all others.
    #[arg(long, env = "OTEL_TRACES_SAMPLER", value_name = "NAME", default_value = SAMPLER, value_parser = standard(SAMPLER, sampler_name))]
    otel_traces_sampler: Standard<SamplerName>,

    /// The share of traces that the `traceidratio` samplers record, from 0 to 1.
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", value_name = "RATIO", default_value = RATIO, value_parser = standard(RATIO, ratio))]
    otel_traces_sampler_arg: Standard<f64>,

    /// The name of this service in traces; else the name of the program.
    #[arg(long, env = "OTEL_SERVICE_NAME", value_name = "NAME")]
    otel_service_name: Option<String>,

    /// Spans that may wait for the collector; further ones are lost and counted.
    #[arg(long, env = "OTEL_BSP_MAX_QUEUE_SIZE", value_name = "N", default_value = QUEUE, value_parser = standard(QUEUE, number_in(1..=1_000_000)))]
    otel_bsp_max_queue_size: Standard<u32>,

    /// Spans in one request to the collector.
    #[arg(long, env = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", value_name = "N", default_value = BATCH, value_parser = standard(BATCH, number_in(1..=100_000)))]
    otel_bsp_max_export_batch_size: Standard<u32>,

    /// Milliseconds until a batch that is not full is sent.
    #[arg(long, env = "OTEL_BSP_SCHEDULE_DELAY", value_name = "MS", default_value = DELAY, value_parser = standard(DELAY, number_in(1..=600_000)))]
    otel_bsp_schedule_delay: Standard<u32>,
}

impl TraceArgs {
    /// The URL that traces are posted to. `None`: nothing is recorded.
    fn url(&self) -> Option<String> {
        if self.otel_sdk_disabled.value {
            return None;
        }
        let given = |url: &Option<String>| url.clone().filter(|url| !url.is_empty());
        given(&self.otel_exporter_otlp_traces_endpoint).or_else(|| {
            let base = given(&self.otel_exporter_otlp_endpoint)?;
            Some(format!("{}/v1/traces", base.trim_end_matches('/')))
        })
    }

    fn batching(&self) -> Batching {
        let size = |setting: &Standard<u32>| usize::try_from(setting.value).unwrap_or(usize::MAX);
        let queue = size(&self.otel_bsp_max_queue_size);
        Batching {
            queue,
            batch: size(&self.otel_bsp_max_export_batch_size).min(queue),
            delay: Duration::from_millis(self.otel_bsp_schedule_delay.value.into()),
        }
    }

    /// What was given and is not understood.
    fn warn(&self) {
        self.otel_sdk_disabled.warn("OTEL_SDK_DISABLED");
        self.otel_traces_sampler.warn("OTEL_TRACES_SAMPLER");
        self.otel_traces_sampler_arg.warn("OTEL_TRACES_SAMPLER_ARG");
        for (name, setting) in [
            ("OTEL_BSP_MAX_QUEUE_SIZE", &self.otel_bsp_max_queue_size),
            (
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
                &self.otel_bsp_max_export_batch_size,
            ),
            ("OTEL_BSP_SCHEDULE_DELAY", &self.otel_bsp_schedule_delay),
        ] {
            setting.warn(name);
        }
    }

    /// Attributes from `OTEL_RESOURCE_ATTRIBUTES` come with the builder.
    fn resource(&self, program: &'static str) -> Resource {
        let name = self.otel_service_name.clone();
        let name = name.filter(|name| !name.is_empty());
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

/// How long the end of a program waits for the collector: what is left of the time to drain, within these bounds. A
/// collector that does not respond must not delay the end, and one that does needs a moment.
const LONGEST_FLUSH: Duration = Duration::from_secs(2);
const SHORTEST_FLUSH: Duration = Duration::from_millis(250);

/// Sends the last spans when it is dropped. Keep it until `main` ends.
#[derive(Debug)]
pub struct Flush {
    provider: Option<SdkTracerProvider>,
    drain: Duration,
}

impl Flush {
    fn of(provider: Option<SdkTracerProvider>) -> Self {
        Self {
            provider,
            drain: LONGEST_FLUSH,
        }
    }

    /// The program ends so long after its stop signal.
    #[must_use]
    pub fn within(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }
}

/// `stopping_for`: the time since the stop signal.
fn time_to_flush(drain: Duration, stopping_for: Duration) -> Duration {
    let left = drain.saturating_sub(stopping_for);
    left.clamp(SHORTEST_FLUSH, LONGEST_FLUSH)
}

impl Drop for Flush {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take() {
            let stopping_for = shutdown::stopping_for().unwrap_or_default();
            let time = time_to_flush(self.drain, stopping_for);
            if let Err(error) = provider.shutdown_with_timeout(time) {
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
    args.warn();
    let Some(url) = args.url() else {
        return Ok(Flush::of(None));
    };
    let exporter = SpanExporter::builder()
        .with_http()
        // The only one that is built in, whatever the environment names.
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(&url)
        .build()
        .map_err(|error| format!("OTEL_EXPORTER_OTLP_ENDPOINT: {error}"))?;
    let sampler = Decider {
        name: args.otel_traces_sampler.value,
        ratio: args.otel_traces_sampler_arg.value,
        trusts_callers,
    };
    let provider = SdkTracerProvider::builder()
        .with_resource(args.resource(program))
        .with_sampler(sampler)
        .with_span_processor(Bounded::new(
            exporter,
            &without_credentials(&url),
            args.batching(),
        ))
        .build();
    begin(&provider, program);
    Ok(Flush::of(Some(provider)))
}

/// For the log: an address may have a password, or a key in its query.
fn without_credentials(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else {
        return "the collector".to_owned();
    };
    url.set_query(None);
    // Both fail only for a URL without a host, which cannot have them.
    let _ = (url.set_username(""), url.set_password(None));
    url.into()
}

fn begin(provider: &SdkTracerProvider, program: &'static str) {
    let scope = InstrumentationScope::builder(program)
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(names::SCHEMA_URL)
        .build();
    TRACER.get_or_init(|| provider.tracer_with_scope(scope));
}

/// Records every span of this process, for as long as it runs.
#[cfg(feature = "test-support")]
pub(crate) fn record_to(exporter: impl opentelemetry_sdk::trace::SpanExporter + 'static) {
    static KEPT: std::sync::OnceLock<SdkTracerProvider> = std::sync::OnceLock::new();
    let batching = Batching {
        queue: 1_000_000,
        batch: 10_000,
        delay: Duration::from_millis(5),
    };
    let provider = KEPT.get_or_init(|| {
        SdkTracerProvider::builder()
            .with_sampler(Decider {
                name: SamplerName::ParentbasedAlwaysOn,
                ratio: 1.0,
                trusts_callers: true,
            })
            .with_span_processor(Bounded::new(exporter, "memory", batching))
            .build()
    });
    begin(provider, "tests");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flush_gets_what_the_drain_has_left() {
        let secs = Duration::from_secs;
        for (drain, stopping_for, time) in [
            (secs(25), secs(1), LONGEST_FLUSH),
            (secs(10), secs(9), secs(1)),
            (secs(10), secs(10), SHORTEST_FLUSH),
            (secs(10), secs(11), SHORTEST_FLUSH),
            (secs(1), secs(0), secs(1)),
        ] {
            let left = time_to_flush(drain, stopping_for);
            assert_eq!(left, time, "{drain:?} {stopping_for:?}");
        }
    }

    #[test]
    fn p13_the_log_has_no_password() {
        let url = "https://shop:hunter2@collector:4318/v1/traces?key=s3cret";
        assert_eq!(without_credentials(url), "https://collector:4318/v1/traces");
        assert_eq!(without_credentials("hunter2"), "the collector");
    }
}
