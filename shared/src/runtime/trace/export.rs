//! The way of ended spans to the collector: a bounded queue that counts what it loses.
//!
//! The SDK's queue drops spans without a count that could be scraped. So this bound stands before it and is never higher.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor,
};

use crate::runtime::tasks::Outage;

static EXPORTED: AtomicU64 = AtomicU64::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);

/// Spans that the collector has accepted.
pub fn exported_spans() -> u64 {
    EXPORTED.load(Ordering::Relaxed)
}

/// Spans that were thrown away, because the collector is away, refuses them, or takes them too slowly.
pub fn lost_spans() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// How spans are batched; the standard variables `OTEL_BSP_*` say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batching {
    pub(super) queue: usize,
    pub(super) batch: usize,
    pub(super) delay: Duration,
}

/// A processor whose queue is bounded here.
#[derive(Debug)]
pub(super) struct Bounded {
    queued: Arc<AtomicUsize>,
    max: usize,
    batches: BatchSpanProcessor,
}

impl Bounded {
    /// `address`: of the collector, for the log.
    pub(super) fn new(
        exporter: impl SpanExporter + 'static,
        address: &str,
        batching: Batching,
    ) -> Self {
        let queued = Arc::new(AtomicUsize::new(0));
        let counted = Counted {
            queued: Arc::clone(&queued),
            outage: Mutex::new(Outage::new(format!("sending spans to {address}"))),
            exporter,
        };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(batching.queue)
            .with_max_export_batch_size(batching.batch)
            .with_scheduled_delay(batching.delay)
            .build();
        Self {
            queued,
            max: batching.queue,
            batches: BatchSpanProcessor::new(counted, config),
        }
    }
}

impl SpanProcessor for Bounded {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.name.is_empty() {
            // See `Span::forget`.
            return;
        }
        let has_room = |queued| (queued < self.max).then_some(queued + 1);
        let entered = self
            .queued
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, has_room);
        if entered.is_ok() {
            self.batches.on_end(span);
        } else {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// An exporter that counts, and logs an outage.
#[derive(Debug)]
struct Counted<E> {
    queued: Arc<AtomicUsize>,
    outage: Mutex<Outage>,
    exporter: E,
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        // They have left the queue, so others may enter while these are sent.
        self.queued.fetch_sub(spans, Ordering::Relaxed);
        let result = self.exporter.export(batch).await;
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = match &result {
            Ok(()) => {
                outage.ended();
                &EXPORTED
            }
            Err(error) => {
                outage.failed(error);
                &LOST
            }
        };
        counter.fetch_add(u64::try_from(spans).unwrap_or(u64::MAX), Ordering::Relaxed);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
