//! A gateway with a script.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use refund_consumer::gateway::{
    CallFailed, CallKind, Capabilities, GatewayName, ProviderRefund, RefundGateway, RefundRequest,
    RefundStatus,
};
use shared::domain::refund::ProviderKey;
use tokio::sync::{Semaphore, watch};

/// One step of the script, for one `submit`. After the script each `submit` pays.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Decline,
    /// Accepts; [`Fake::settle`] decides later.
    Pend,
    /// Pays, and the response is lost.
    PayUnheard,
    /// The request is lost after it was sent.
    Lose,
    /// The provider cannot be reached.
    Unreachable,
    /// Responds with another amount, without paying.
    Mismatch,
    /// Waits for [`Fake::let_go`], then pays.
    Hold,
}

#[derive(Debug, Clone)]
pub(crate) struct Fake(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: GatewayName,
    keys: AtomicBool,
    script: Mutex<VecDeque<Step>>,
    known: Mutex<HashMap<String, ProviderRefund>>,
    submitted: Mutex<Vec<String>>,
    effects: Mutex<Vec<String>>,
    looked_up: Mutex<Vec<String>>,
    find_fails: AtomicBool,
    find_is_blind: AtomicBool,
    closed: watch::Sender<bool>,
    admits_none: watch::Sender<bool>,
    status_hangs: watch::Sender<bool>,
    gate: Semaphore,
}

impl Fake {
    pub(crate) fn with_keys(script: &[Step]) -> Self {
        Self::new("fake", true, script)
    }

    pub(crate) fn without_keys(script: &[Step]) -> Self {
        Self::new("fake", false, script)
    }

    /// Another account, with keys of its own.
    pub(crate) fn of_account(name: &str, script: &[Step]) -> Self {
        Self::new(name, true, script)
    }

    fn new(name: &str, keys: bool, script: &[Step]) -> Self {
        Self(Arc::new(Inner {
            name: GatewayName::parse(name).expect("a name"),
            keys: AtomicBool::new(keys),
            script: Mutex::new(script.iter().cloned().collect()),
            known: Mutex::default(),
            submitted: Mutex::default(),
            effects: Mutex::default(),
            looked_up: Mutex::default(),
            find_fails: AtomicBool::new(false),
            find_is_blind: AtomicBool::new(false),
            closed: watch::Sender::new(false),
            admits_none: watch::Sender::new(false),
            status_hangs: watch::Sender::new(false),
            gate: Semaphore::new(0),
        }))
    }

    /// Keys of all `submit` calls, in order.
    pub(crate) fn submitted(&self) -> Vec<String> {
        lock(&self.0.submitted).clone()
    }

    /// Keys under which money was paid, once per payment.
    pub(crate) fn effects(&self) -> Vec<String> {
        lock(&self.0.effects).clone()
    }

    pub(crate) fn looked_up(&self) -> Vec<String> {
        lock(&self.0.looked_up).clone()
    }

    pub(crate) fn find_fails(&self, fails: bool) {
        self.0.find_fails.store(fails, Ordering::SeqCst);
    }

    /// Look-ups lag behind: nothing is found.
    pub(crate) fn find_is_blind(&self) {
        self.0.find_is_blind.store(true, Ordering::SeqCst);
    }

    /// The provider has honored no keys so far; from now on it does.
    pub(crate) fn turn_keys_on(&self) {
        self.0.keys.store(true, Ordering::SeqCst);
    }

    /// Accepts no calls, as an open circuit does, or accepts them again.
    pub(crate) fn close(&self, closed: bool) {
        self.0.closed.send_replace(closed);
    }

    /// Admits no call, as a rate limit does that is used up.
    pub(crate) fn admit_none(&self, none: bool) {
        self.0.admits_none.send_replace(none);
    }

    /// How many calls wait because of that.
    pub(crate) fn held_back(&self) -> usize {
        self.0.admits_none.receiver_count()
    }

    /// From now on it knows none of its refunds.
    pub(crate) fn forget_everything(&self) {
        lock(&self.0.known).clear();
    }

    /// Whether a question about an accepted refund waits.
    pub(crate) fn status_hangs(&self, hangs: bool) {
        self.0.status_hangs.send_replace(hangs);
    }

    pub(crate) fn let_go(&self) {
        self.0.gate.add_permits(1000);
    }

    /// The status of `key` from now on.
    pub(crate) fn settle(&self, key: &str, status: RefundStatus) {
        let mut known = lock(&self.0.known);
        if status == RefundStatus::Succeeded {
            lock(&self.0.effects).push(key.to_owned());
        }
        known.get_mut(key).expect("a known key").status = status;
    }

    fn pay(&self, request: &RefundRequest) -> ProviderRefund {
        if let Some(answer) = self.known(&request.key.0).filter(|_| self.has_keys()) {
            return answer;
        }
        lock(&self.0.effects).push(request.key.0.clone());
        self.remember(request, RefundStatus::Succeeded)
    }

    fn remember(&self, request: &RefundRequest, status: RefundStatus) -> ProviderRefund {
        let answer = ProviderRefund {
            status,
            gateway_ref: format!("ref-{}", request.key),
            amount: request.amount.clone(),
        };
        lock(&self.0.known).insert(request.key.0.clone(), answer.clone());
        answer
    }

    fn has_keys(&self) -> bool {
        self.0.keys.load(Ordering::SeqCst)
    }

    fn known(&self, key: &str) -> Option<ProviderRefund> {
        lock(&self.0.known).get(key).cloned()
    }
}

impl RefundGateway for Fake {
    fn name(&self) -> &GatewayName {
        &self.0.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            native_idempotency: self.has_keys(),
            asynchronous: true,
        }
    }

    async fn ready(&self, _: CallKind) {
        for shut in [&self.0.closed, &self.0.admits_none] {
            let mut shut = shut.subscribe();
            let open = shut.wait_for(|shut| !shut).await;
            drop(open.expect("the sender is ours"));
        }
    }

    fn is_closed(&self) -> bool {
        *self.0.closed.borrow()
    }

    async fn submit(&self, request: &RefundRequest) -> Result<ProviderRefund, CallFailed> {
        lock(&self.0.submitted).push(request.key.0.clone());
        let step = lock(&self.0.script).pop_front();
        match step {
            None => Ok(self.pay(request)),
            Some(Step::Decline) => {
                let code = "card_expired".to_owned();
                Ok(self.remember(request, RefundStatus::Declined { code }))
            }
            Some(Step::Pend) => Ok(self.remember(request, RefundStatus::Pending)),
            Some(Step::PayUnheard) => {
                self.pay(request);
                Err(CallFailed::Unknown("answer_lost"))
            }
            Some(Step::Lose) => Err(CallFailed::Unknown("answer_lost")),
            Some(Step::Unreachable) => Err(CallFailed::NotSent("connect_failed")),
            Some(Step::Mismatch) => {
                let mut answer = self.remember(request, RefundStatus::Succeeded);
                answer.amount.amount += rust_decimal::Decimal::ONE;
                lock(&self.0.known).insert(request.key.0.clone(), answer.clone());
                Ok(answer)
            }
            Some(Step::Hold) => {
                self.0.gate.acquire().await.expect("never closed").forget();
                Ok(self.pay(request))
            }
        }
    }

    async fn find(&self, key: &ProviderKey) -> Result<Option<ProviderRefund>, CallFailed> {
        lock(&self.0.looked_up).push(key.0.clone());
        if self.0.find_fails.load(Ordering::SeqCst) {
            return Err(CallFailed::Unknown("find_failed"));
        }
        let blind = self.0.find_is_blind.load(Ordering::SeqCst);
        Ok(self.known(&key.0).filter(|_| !blind))
    }

    async fn status(
        &self,
        gateway_ref: &str,
        _: &ProviderKey,
    ) -> Result<Option<ProviderRefund>, CallFailed> {
        let mut hangs = self.0.status_hangs.subscribe();
        let free = hangs.wait_for(|hangs| !hangs).await;
        drop(free.expect("the sender is ours"));
        let known = lock(&self.0.known);
        Ok(known
            .values()
            .find(|answer| answer.gateway_ref == gateway_ref)
            .cloned())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("not poisoned")
}
