//! Calls to the gateway, each within its attempt's deadline. The clocks are checked after every wait, directly before the
//! call: the timers stand still while the machine is suspended.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use shared::domain::refund::ProviderKey;
use shared::runtime::clock::Expiry;

use super::RefundWorker;
use crate::attempt::{OwnedAttempt, SendState};
use crate::gateway::{CallFailed, CallKind, ProviderRefund, RefundGateway};

/// How many wait.
#[derive(Debug, Default)]
pub struct Waiters(AtomicUsize);

/// One that waits, until this is dropped.
#[derive(Debug)]
struct Waiter<'a>(&'a AtomicUsize);

impl Waiters {
    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn add(&self) -> Waiter<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Waiter(&self.0)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<G: RefundGateway> RefundWorker<G> {
    /// How long a call may still wait. One that begins in the second half of its time is likely to be cut off by the
    /// deadline and to end unknown.
    fn left_to_start(&self, deadline: &Expiry) -> Duration {
        deadline.left().saturating_sub(self.call_deadline / 2)
    }

    pub(super) fn has_time(&self, deadline: &Expiry) -> bool {
        !self.left_to_start(deadline).is_zero()
    }

    pub(super) async fn status(
        &self,
        attempt: &OwnedAttempt,
        gateway_ref: &str,
    ) -> Result<Option<ProviderRefund>, CallFailed> {
        let (deadline, kind) = (attempt.deadline, CallKind::LookUp);
        let admitted = match attempt.sent {
            SendState::Paid { .. } => self.admitted(deadline, kind).await,
            SendState::Fresh
            | SendState::Unsent
            | SendState::MaybeSent { .. }
            | SendState::Pending { .. } => self.payment_admitted(deadline, kind).await,
        };
        admitted.map_err(CallFailed::NotSent)?;
        let call = self.gateway.status(gateway_ref, &attempt.key);
        self.call("status", attempt.deadline, call).await
    }

    pub(super) async fn find(
        &self,
        key: &ProviderKey,
        deadline: Expiry,
    ) -> Result<Option<ProviderRefund>, CallFailed> {
        let admitted = self.payment_admitted(deadline, CallKind::LookUp).await;
        admitted.map_err(CallFailed::NotSent)?;
        self.call("find", deadline, self.gateway.find(key)).await
    }

    /// [`Self::admitted`] for an attempt that is not settled yet. No paid one is looked up again meanwhile.
    pub(super) async fn payment_admitted(
        &self,
        deadline: Expiry,
        kind: CallKind,
    ) -> Result<(), &'static str> {
        let _waiter = self.payments_waiting.add();
        self.admitted(deadline, kind).await
    }

    /// Waits until the gateway may be called.
    ///
    /// # Errors
    /// Why it will not be called.
    async fn admitted(&self, deadline: Expiry, kind: CallKind) -> Result<(), &'static str> {
        // A timeout alone would still let a call through that is ready at once, or that waited in a suspended machine.
        let left = self.left_to_start(&deadline);
        if left.is_zero() {
            return Err("no_time");
        }
        let ready = tokio::time::timeout(left, self.gateway.ready(kind));
        match self.stop.run_until_cancelled(ready).await {
            Some(Ok(())) if !self.has_time(&deadline) => Err("no_time"),
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err("gateway_paused"),
            None => Err("stopping"),
        }
    }

    /// A call within the attempt's deadline, counted.
    pub(super) async fn call<T>(
        &self,
        operation: &'static str,
        deadline: Expiry,
        call: impl Future<Output = Result<T, CallFailed>>,
    ) -> Result<T, CallFailed> {
        let began = Instant::now();
        // A timeout alone would still poll the call once, which may be enough to send it.
        let left = deadline.left();
        if left.is_zero() {
            self.count_call("deadline_passed");
            return Err(CallFailed::NotSent("deadline_passed"));
        }
        let result = tokio::time::timeout(left, call)
            .await
            .unwrap_or(Err(CallFailed::Unknown("timeout")));
        let seconds = began.elapsed().as_secs_f64();
        self.metrics
            .gateway
            .seconds
            .with_label_values(&[operation])
            .observe(seconds);
        let label = result
            .as_ref()
            .map_or_else(CallFailed::as_str, |_| "answered");
        self.count_call(label);
        for kind in CallKind::ALL {
            let refuses_all = i64::from(self.gateway.refuses_all(kind));
            let gauge = &self.metrics.gateway.refuses_all;
            gauge.with_label_values(&[kind.as_str()]).set(refuses_all);
        }
        result
    }

    fn count_call(&self, result: &str) {
        self.metrics
            .gateway
            .calls
            .with_label_values(&[result])
            .inc();
    }
}
