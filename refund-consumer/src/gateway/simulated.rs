//! A gateway for the demo: it moves no money, it writes a line.
//!
//! Its ledger is an append-only file of JSON lines, one per payment, read once when it is opened. One process owns the
//! file: two would not know each other's payments. Tests with several processes use `returnsctl dev-gateway`.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::domain::money::{Currency, Money};
use shared::domain::refund::ProviderKey;
use uuid::Uuid;

use super::{
    CallFailed, Capabilities, GatewayName, ProviderRefund, RefundGateway, RefundRequest,
    RefundStatus,
};

/// See the module.
#[derive(Debug, Clone)]
pub struct Simulated {
    name: GatewayName,
    ledger: Arc<Mutex<Ledger>>,
    delay: Duration,
}

impl Simulated {
    /// Opens or creates the ledger.
    ///
    /// # Errors
    /// The file cannot be opened or read.
    pub fn open(path: &Path, delay: Duration, fsync: bool) -> io::Result<Self> {
        Ok(Self {
            name: GatewayName::simulated(),
            ledger: Arc::new(Mutex::new(Ledger::open(path, fsync)?)),
            delay,
        })
    }
}

impl RefundGateway for Simulated {
    fn name(&self) -> &GatewayName {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            native_idempotency: true,
            asynchronous: false,
        }
    }

    async fn submit(&self, request: &RefundRequest) -> Result<ProviderRefund, CallFailed> {
        tokio::time::sleep(self.delay).await;
        let (ledger, request) = (Arc::clone(&self.ledger), request.clone());
        // The disk may block.
        let paid = tokio::task::spawn_blocking(move || lock(&ledger).pay(&request)).await;
        match paid {
            Ok(Ok(refund)) => Ok(refund),
            Ok(Err(_)) | Err(_) => Err(CallFailed::Unknown("ledger_write_failed")),
        }
    }

    async fn find(&self, key: &ProviderKey) -> Result<Option<ProviderRefund>, CallFailed> {
        Ok(lock(&self.ledger).paid.get(&key.0).cloned())
    }

    /// No refund is ever pending here.
    async fn status(
        &self,
        gateway_ref: &str,
        key: &ProviderKey,
    ) -> Result<Option<ProviderRefund>, CallFailed> {
        let found = self.find(key).await?;
        Ok(found.filter(|refund| refund.gateway_ref == gateway_ref))
    }
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    // A payment is remembered only after its line was written.
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One payment, as written.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    key: String,
    amount: String,
    currency: String,
    gateway_ref: String,
}

#[derive(Debug)]
struct Ledger {
    file: File,
    /// The length of the file in complete lines.
    bytes: u64,
    paid: HashMap<String, ProviderRefund>,
    fsync: bool,
}

impl Ledger {
    fn open(path: &Path, fsync: bool) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // A crash cut the last line off before the caller got a response, so it is no payment.
        let complete = text.rfind('\n').map_or(0, |end| end + 1);
        let bytes = u64::try_from(complete).map_err(io::Error::other)?;
        file.set_len(bytes)?;
        let lines = text[..complete].lines().map(read);
        Ok(Self {
            file,
            bytes,
            paid: lines.collect::<io::Result<_>>()?,
            fsync,
        })
    }

    /// Pays once per key: a repeat gets the first response, with the first amount.
    fn pay(&mut self, request: &RefundRequest) -> io::Result<ProviderRefund> {
        if let Some(paid) = self.paid.get(&request.key.0) {
            return Ok(paid.clone());
        }
        let refund = ProviderRefund {
            status: RefundStatus::Succeeded,
            gateway_ref: format!("sim-{}", Uuid::now_v7().simple()),
            amount: request.amount.clone(),
        };
        let mut line = serde_json::to_vec(&Line {
            key: request.key.0.clone(),
            amount: refund.amount.decimal_text(),
            currency: refund.amount.currency.to_string(),
            gateway_ref: refund.gateway_ref.clone(),
        })?;
        line.push(b'\n');
        self.append(&line).inspect_err(|_| {
            // If this fails too, the next start cuts the incomplete line off.
            let _ = self.file.set_len(self.bytes);
        })?;
        self.bytes += u64::try_from(line.len()).map_err(io::Error::other)?;
        self.paid.insert(request.key.0.clone(), refund.clone());
        Ok(refund)
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        self.file.write_all(line)?;
        if self.fsync {
            self.file.sync_data()?;
        }
        Ok(())
    }
}

fn read(line: &str) -> io::Result<(String, ProviderRefund)> {
    let line: Line = serde_json::from_str(line)?;
    let currency = Currency::parse(&line.currency).map_err(io::Error::other)?;
    let amount = line.amount.parse().map_err(io::Error::other)?;
    let refund = ProviderRefund {
        status: RefundStatus::Succeeded,
        gateway_ref: line.gateway_ref,
        amount: Money::new(amount, currency),
    };
    Ok((line.key, refund))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ProviderKey {
        ProviderKey(text.to_owned())
    }

    fn request(text: &str, amount: &str) -> RefundRequest {
        RefundRequest {
            key: key(text),
            amount: Money::new(
                amount.parse().expect("a decimal"),
                Currency::parse("EUR").expect("a code"),
            ),
            sent_before: 0,
        }
    }

    fn open(path: &Path) -> Simulated {
        Simulated::open(path, Duration::ZERO, false).expect("a ledger")
    }

    fn payments(path: &Path) -> usize {
        let ledger = std::fs::read_to_string(path).expect("the ledger");
        ledger.lines().count()
    }

    #[tokio::test]
    async fn p5_one_key_pays_once_across_restarts() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("ledger");
        let first = open(&path).submit(&request("k", "49.90")).await;
        let first = first.expect("paid");
        let again = open(&path);
        assert_eq!(again.submit(&request("k", "1.00")).await, Ok(first.clone()));
        assert_eq!(again.find(&key("k")).await, Ok(Some(first.clone())));
        let status = again.status(&first.gateway_ref, &key("k")).await;
        assert_eq!(status, Ok(Some(first)));
        assert_eq!(again.find(&key("other")).await, Ok(None));
        assert_eq!(payments(&path), 1);
    }

    #[tokio::test]
    async fn p5_concurrent_calls_with_one_key_pay_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("ledger");
        let gateway = open(&path);
        let calls: Vec<_> = (0..16)
            .map(|_| {
                let gateway = gateway.clone();
                tokio::spawn(async move { gateway.submit(&request("k", "5")).await })
            })
            .collect();
        let mut refunds = Vec::new();
        for call in calls {
            refunds.push(call.await.expect("no panic").expect("paid"));
        }
        assert!(refunds.iter().all(|refund| *refund == refunds[0]));
        assert_eq!(payments(&path), 1);
    }

    #[tokio::test]
    async fn a_payment_that_could_not_be_written_was_not_made() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("ledger");
        let gateway = open(&path);
        let read_only = File::open(&path).expect("open");
        let writable = std::mem::replace(&mut lock(&gateway.ledger).file, read_only);
        assert!(gateway.submit(&request("k", "5")).await.is_err());
        assert_eq!(gateway.find(&key("k")).await, Ok(None));
        lock(&gateway.ledger).file = writable;
        assert!(gateway.submit(&request("k", "5")).await.is_ok());
        assert_eq!(payments(&path), 1);
    }

    #[tokio::test]
    async fn a_line_cut_off_by_a_crash_is_no_payment() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("ledger");
        open(&path).submit(&request("a", "5")).await.expect("paid");
        let mut file = OpenOptions::new().append(true).open(&path).expect("open");
        file.write_all(br#"{"key":"b","amo"#).expect("write");
        let gateway = open(&path);
        assert_eq!(gateway.find(&key("b")).await, Ok(None));
        gateway.submit(&request("b", "5")).await.expect("paid");
        assert_eq!(payments(&path), 2);
        let again = open(&path).find(&key("b")).await;
        assert!(again.expect("read").is_some());
    }
}
