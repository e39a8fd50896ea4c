//! A gateway for demonstrations and tests: it moves no money, it writes a line.
//!
//! Its memory is a ledger file of JSON lines, one per effect, shared by all processes that name it. Every look at
//! it holds the file's lock and reads what others have appended, so keys hold across processes and restarts. It
//! keeps every key in memory for ever, which only a demonstration may do.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use shared::domain::money::{Currency, Money};
use uuid::Uuid;

use super::{Answer, CallFailed, Capabilities, Outcome, RefundGateway, RefundRequest};
use crate::attempt::IdempotencyKey;
use crate::grouped::{Grouped, grouped};

/// Calls that wait are answered together, under one lock of the file and with one write.
const MAX_GROUP: usize = 1_000;

/// See the module. Ends its worker with its last clone.
#[derive(Debug, Clone)]
pub struct Simulated {
    ledger: Arc<Grouped<Call, Result<Option<Answer>, CallFailed>>>,
    delay: Duration,
}

#[derive(Debug)]
enum Call {
    Pay(RefundRequest),
    Find(IdempotencyKey),
}

impl Simulated {
    /// Opens or creates the ledger. Call it inside a runtime: the ledger has a worker.
    ///
    /// # Errors
    /// The file cannot be opened or read.
    pub fn open(path: &Path, delay: Duration, fsync: bool) -> io::Result<Self> {
        let ledger = Arc::new(Mutex::new(Ledger::open(path, fsync)?));
        let (calls, queue) = grouped(MAX_GROUP);
        tokio::spawn(queue.serve(MAX_GROUP, move |calls| answer(Arc::clone(&ledger), calls)));
        Ok(Self {
            ledger: Arc::new(calls),
            delay,
        })
    }

    async fn call(&self, call: Call) -> Result<Option<Answer>, CallFailed> {
        let answered = self.ledger.write(call).await;
        answered.unwrap_or(Err(CallFailed::Unknown("ledger_gone")))
    }
}

/// Answers a group on a thread that may block.
async fn answer(
    ledger: Arc<Mutex<Ledger>>,
    calls: Vec<Call>,
) -> Vec<Result<Option<Answer>, CallFailed>> {
    let asked = calls.len();
    let run = move || {
        // Poisoned means that another group panicked; what it left is what the file says.
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.answer(&calls)
    };
    tokio::task::spawn_blocking(run)
        .await
        .unwrap_or_else(|_| vec![Err(CallFailed::Unknown("ledger_panicked")); asked])
}

impl RefundGateway for Simulated {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            native_idempotency: true,
            asynchronous: false,
        }
    }

    async fn submit(&self, request: &RefundRequest) -> Result<Answer, CallFailed> {
        tokio::time::sleep(self.delay).await;
        let paid = self.call(Call::Pay(request.clone())).await?;
        paid.ok_or(CallFailed::Unknown("ledger_write_failed"))
    }

    async fn find(&self, key: &IdempotencyKey) -> Result<Option<Answer>, CallFailed> {
        self.call(Call::Find(key.clone())).await
    }

    /// Nothing is ever pending here.
    async fn status(
        &self,
        gateway_ref: &str,
        key: &IdempotencyKey,
    ) -> Result<Option<Answer>, CallFailed> {
        let found = self.find(key).await?;
        Ok(found.filter(|answer| answer.gateway_ref == gateway_ref))
    }
}

/// One effect, as written.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    key: String,
    amount: String,
    currency: String,
    gateway_ref: String,
}

#[derive(Debug)]
struct Entry {
    line: Line,
    amount: Money,
}

impl Entry {
    fn of(request: &RefundRequest) -> Self {
        Self {
            line: Line {
                key: request.key.0.clone(),
                amount: request.amount.decimal_text(),
                currency: request.amount.currency.to_string(),
                gateway_ref: format!("sim-{}", Uuid::now_v7().simple()),
            },
            amount: request.amount.clone(),
        }
    }

    fn answer(&self) -> Answer {
        Answer {
            outcome: Outcome::Succeeded,
            gateway_ref: self.line.gateway_ref.clone(),
            amount: self.amount.clone(),
        }
    }
}

#[derive(Debug)]
struct Ledger {
    file: File,
    /// Everything before this offset is in `paid`.
    read_to: u64,
    paid: HashMap<String, Entry>,
    fsync: bool,
}

impl Ledger {
    fn open(path: &Path, fsync: bool) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        let mut ledger = Self {
            file,
            read_to: 0,
            paid: HashMap::new(),
            fsync,
        };
        flock(&ledger.file, FlockOperation::LockExclusive)?;
        let caught_up = ledger.catch_up();
        flock(&ledger.file, FlockOperation::Unlock)?;
        caught_up?;
        Ok(ledger)
    }

    fn answer(&mut self, calls: &[Call]) -> Vec<Result<Option<Answer>, CallFailed>> {
        let none = |error| vec![Err(CallFailed::NotSent(error)); calls.len()];
        if flock(&self.file, FlockOperation::LockExclusive).is_err() {
            return none("ledger_unavailable");
        }
        let answers = match self.catch_up() {
            Ok(()) => {
                self.pay(calls);
                calls.iter().map(|call| Ok(self.known(call))).collect()
            }
            Err(_) => none("ledger_unreadable"),
        };
        // The lock also goes with the file; a failure to unlock must not hide what was done.
        let _ = flock(&self.file, FlockOperation::Unlock);
        answers
    }

    fn known(&self, call: &Call) -> Option<Answer> {
        let (Call::Pay(RefundRequest { key, .. }) | Call::Find(key)) = call;
        self.paid.get(&key.0).map(Entry::answer)
    }

    /// Reads what others have appended. A line without its end was cut off by a crash and is taken away: it was
    /// never answered, so it is no effect.
    fn catch_up(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.read_to))?;
        let mut tail = String::new();
        self.file.read_to_string(&mut tail)?;
        let whole = tail.rfind('\n').map_or(0, |end| end + 1);
        for line in tail[..whole].lines() {
            self.remember(serde_json::from_str(line)?)?;
        }
        self.read_to += u64::try_from(whole).map_err(io::Error::other)?;
        if whole < tail.len() {
            self.file.set_len(self.read_to)?;
        }
        Ok(())
    }

    fn remember(&mut self, line: Line) -> io::Result<()> {
        let currency = Currency::parse(&line.currency).map_err(io::Error::other)?;
        let amount = line.amount.parse().map_err(io::Error::other)?;
        let entry = Entry {
            amount: Money::new(amount, currency),
            line,
        };
        self.paid.insert(entry.line.key.clone(), entry);
        Ok(())
    }

    /// Pays once per key: a repeat gets the first answer, with the first amount. If the write fails, none of this
    /// group's new keys is known; what reached the file all the same is read at the next look.
    fn pay(&mut self, calls: &[Call]) {
        let (mut text, mut new) = (Vec::new(), Vec::new());
        for call in calls {
            let Call::Pay(request) = call else { continue };
            if self.paid.contains_key(&request.key.0) {
                continue;
            }
            let entry = Entry::of(request);
            serde_json::to_writer(&mut text, &entry.line).expect("four strings always serialize");
            text.push(b'\n');
            new.push(entry.line.key.clone());
            self.paid.insert(entry.line.key.clone(), entry);
        }
        if self.append(&text).is_err() {
            for key in new {
                self.paid.remove(&key);
            }
        }
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.file.write_all(text)?;
        if self.fsync {
            self.file.sync_data()?;
        }
        self.read_to += u64::try_from(text.len()).map_err(io::Error::other)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(key: &str, amount: &str) -> RefundRequest {
        RefundRequest {
            key: IdempotencyKey(key.to_owned()),
            amount: Money::new(
                amount.parse().expect("a decimal"),
                Currency::parse("EUR").expect("a code"),
            ),
        }
    }

    fn open(path: &Path) -> Simulated {
        Simulated::open(path, Duration::ZERO, false).expect("a ledger")
    }

    fn effects(path: &Path) -> usize {
        std::fs::read_to_string(path)
            .expect("the ledger")
            .lines()
            .count()
    }

    #[tokio::test]
    async fn p5_one_key_has_one_effect_across_instances_and_restarts() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("ledger");
        let (one, two) = (open(&path), open(&path));
        let first = one.submit(&request("k", "49.90")).await.expect("paid");
        assert_eq!(two.submit(&request("k", "49.90")).await, Ok(first.clone()));
        assert_eq!(
            open(&path).submit(&request("k", "1.00")).await,
            Ok(first.clone())
        );
        assert_eq!(
            two.find(&IdempotencyKey("k".to_owned())).await,
            Ok(Some(first.clone()))
        );
        assert_eq!(
            two.status(&first.gateway_ref, &request("k", "49.90").key)
                .await,
            Ok(Some(first))
        );
        assert_eq!(
            two.find(&IdempotencyKey("other".to_owned())).await,
            Ok(None)
        );
        assert_eq!(effects(&path), 1);
    }

    #[tokio::test]
    async fn p5_concurrent_instances_agree_on_one_effect() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("ledger");
        let calls: Vec<_> = (0..16)
            .map(|_| {
                let gateway = open(&path);
                tokio::spawn(async move { gateway.submit(&request("k", "5")).await })
            })
            .collect();
        let mut answers = Vec::new();
        for call in calls {
            answers.push(call.await.expect("no panic").expect("paid"));
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]));
        assert_eq!(effects(&path), 1);
    }

    #[test]
    fn p5_one_key_twice_in_a_group_is_one_effect() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("ledger");
        let mut ledger = Ledger::open(&path, false).expect("a ledger");
        let find = |key: &str| Call::Find(IdempotencyKey(key.to_owned()));
        let answers = ledger.answer(&[
            Call::Pay(request("k", "5")),
            Call::Pay(request("k", "6")),
            find("k"),
            find("other"),
        ]);
        assert!(matches!(answers[0], Ok(Some(_))));
        assert!(answers[1] == answers[0] && answers[2] == answers[0]);
        assert_eq!(answers[3], Ok(None));
        assert_eq!(effects(&path), 1);
    }

    #[test]
    fn what_could_not_be_written_is_not_paid() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("ledger");
        let mut ledger = Ledger::open(&path, false).expect("a ledger");
        let pay = [Call::Pay(request("k", "5"))];
        let writable = std::mem::replace(&mut ledger.file, File::open(&path).expect("open"));
        assert_eq!(ledger.answer(&pay), [Ok(None)]);
        ledger.file = writable;
        assert!(matches!(ledger.answer(&pay)[..], [Ok(Some(_))]));
        assert_eq!(effects(&path), 1);
    }

    #[tokio::test]
    async fn a_line_cut_off_by_a_crash_is_no_effect() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("ledger");
        open(&path).submit(&request("a", "5")).await.expect("paid");
        let mut file = OpenOptions::new().append(true).open(&path).expect("open");
        file.write_all(br#"{"key":"b","amo"#).expect("write");
        let gateway = open(&path);
        assert_eq!(
            gateway.find(&IdempotencyKey("b".to_owned())).await,
            Ok(None)
        );
        gateway.submit(&request("b", "5")).await.expect("paid");
        assert_eq!(effects(&path), 2);
        assert!(
            open(&path)
                .find(&IdempotencyKey("b".to_owned()))
                .await
                .expect("read")
                .is_some()
        );
    }
}
