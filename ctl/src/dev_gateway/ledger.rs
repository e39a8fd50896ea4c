//! The accepted refunds: a file of JSON lines that survives restarts, and its contents in memory.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

/// How the provider behaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) honors_keys: bool,
    pub(super) key_lifetime: Duration,
    /// How long a refund is pending.
    pub(super) settle_after: Option<Duration>,
    /// How long a look-up by reference does not find a refund.
    pub(super) look_up_lag: Duration,
}

/// The request for a refund.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct RefundRequest {
    pub(super) reference: String,
    /// Decimal text.
    pub(super) amount: String,
    pub(super) currency: String,
}

/// A refund that was accepted, as written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) reference: String,
    pub(super) amount: String,
    pub(super) currency: String,
    key: Option<String>,
    declined: bool,
    /// Paid, and taken back later. Written as a line of its own.
    #[serde(skip)]
    reversed: bool,
    #[serde(with = "time::serde::rfc3339")]
    accepted_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    settles_at: OffsetDateTime,
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Accepted(Entry),
    Reversed {
        /// The id of the refund.
        reversed: String,
        #[serde(with = "time::serde::rfc3339")]
        at: OffsetDateTime,
    },
}

/// The state of a refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Pending,
    Succeeded,
    Declined,
}

impl Entry {
    pub(super) fn status(&self, now: OffsetDateTime) -> Status {
        if now < self.settles_at {
            Status::Pending
        } else if self.declined || self.reversed {
            Status::Declined
        } else {
            Status::Succeeded
        }
    }

    fn is_for(&self, request: &RefundRequest) -> bool {
        (&self.reference, &self.amount, &self.currency)
            == (&request.reference, &request.amount, &request.currency)
    }
}

/// The outcome of a request.
#[derive(Debug)]
pub(super) enum Accepted {
    New(Entry),
    /// The same request came under this key before.
    Again(Entry),
    /// Another request came under this key before.
    KeyReused,
}

#[derive(Debug)]
pub(super) struct Ledger {
    file: File,
    fsync: bool,
    terms: Terms,
    entries: Vec<Entry>,
    by_reference: HashMap<String, Vec<usize>>,
    by_id: HashMap<String, usize>,
    /// The latest under each key.
    by_key: HashMap<String, usize>,
}

impl Ledger {
    /// # Errors
    /// The file cannot be opened or read, or another process has it.
    pub(super) fn open(path: &Path, terms: Terms, fsync: bool) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        file.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => io::Error::other("another process has it open"),
            std::fs::TryLockError::Error(error) => error,
        })?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // A crash cut off a line without its end: the call had no response.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(u64::try_from(whole).map_err(io::Error::other)?)?;
        let mut ledger = Self {
            file,
            fsync,
            terms,
            entries: Vec::new(),
            by_reference: HashMap::new(),
            by_id: HashMap::new(),
            by_key: HashMap::new(),
        };
        for line in text[..whole].lines() {
            match serde_json::from_str(line)? {
                Line::Accepted(entry) => ledger.remember(entry),
                Line::Reversed { reversed, .. } => ledger.mark_reversed(&reversed),
            }
        }
        Ok(ledger)
    }

    /// Pays, or repeats the refund of this key.
    ///
    /// # Errors
    /// The refund could not be written.
    pub(super) fn accept(
        &mut self,
        request: RefundRequest,
        key: Option<&str>,
        declined: bool,
        now: OffsetDateTime,
    ) -> io::Result<Accepted> {
        let key = key.filter(|_| self.terms.honors_keys);
        let before = key.and_then(|key| self.by_key.get(key));
        let known = before
            .map(|at| &self.entries[*at])
            .filter(|entry| self.is_remembered(entry, now));
        if let Some(entry) = known {
            return Ok(if entry.is_for(&request) {
                Accepted::Again(entry.clone())
            } else {
                Accepted::KeyReused
            });
        }
        let entry = Entry {
            id: format!("dev-{}", Uuid::now_v7().simple()),
            reference: request.reference,
            amount: request.amount,
            currency: request.currency,
            key: key.map(str::to_owned),
            declined,
            reversed: false,
            accepted_at: now,
            settles_at: now + self.terms.settle_after.unwrap_or_default(),
        };
        self.append(&Line::Accepted(entry.clone()))?;
        self.remember(entry.clone());
        Ok(Accepted::New(entry))
    }

    /// Takes the paid refund of a reference back; `false` if there is none.
    ///
    /// # Errors
    /// It could not be written.
    pub(super) fn reverse(&mut self, reference: &str, now: OffsetDateTime) -> io::Result<bool> {
        let paid = self.find(reference, now).into_iter();
        let mut paid = paid.filter(|entry| entry.status(now) == Status::Succeeded);
        let Some(id) = paid.next_back().map(|entry| entry.id.clone()) else {
            return Ok(false);
        };
        self.append(&Line::Reversed {
            reversed: id.clone(),
            at: now,
        })?;
        self.mark_reversed(&id);
        Ok(true)
    }

    /// The refunds of a reference that the provider still knows.
    pub(super) fn find(&self, reference: &str, now: OffsetDateTime) -> Vec<&Entry> {
        let entries = self.by_reference.get(reference).into_iter().flatten();
        entries
            .map(|at| &self.entries[*at])
            .filter(|entry| self.is_remembered(entry, now))
            .filter(|entry| now >= entry.accepted_at + self.terms.look_up_lag)
            .collect()
    }

    pub(super) fn get(&self, id: &str) -> Option<&Entry> {
        self.by_id.get(id).map(|at| &self.entries[*at])
    }

    /// In the order of their acceptance.
    pub(super) fn all(&self) -> &[Entry] {
        &self.entries
    }

    fn is_remembered(&self, entry: &Entry, now: OffsetDateTime) -> bool {
        !self.terms.honors_keys || now < entry.accepted_at + self.terms.key_lifetime
    }

    fn append(&mut self, line: &Line) -> io::Result<()> {
        let mut line = serde_json::to_vec(line)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        if self.fsync {
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn mark_reversed(&mut self, id: &str) {
        if let Some(at) = self.by_id.get(id) {
            self.entries[*at].reversed = true;
        }
    }

    fn remember(&mut self, entry: Entry) {
        let at = self.entries.len();
        self.by_id.insert(entry.id.clone(), at);
        if let Some(key) = &entry.key {
            self.by_key.insert(key.clone(), at);
        }
        self.by_reference
            .entry(entry.reference.clone())
            .or_default()
            .push(at);
        self.entries.push(entry);
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-23 12:00 UTC);
    const HOUR: Duration = Duration::from_secs(3600);

    fn terms(honors_keys: bool) -> Terms {
        Terms {
            honors_keys,
            key_lifetime: HOUR,
            settle_after: None,
            look_up_lag: Duration::ZERO,
        }
    }

    fn request(amount: &str) -> RefundRequest {
        RefundRequest {
            reference: "k".to_owned(),
            amount: amount.to_owned(),
            currency: "EUR".to_owned(),
        }
    }

    fn open(dir: &tempfile::TempDir, terms: Terms) -> Ledger {
        Ledger::open(&dir.path().join("ledger"), terms, false).expect("a ledger")
    }

    #[test]
    fn a_key_pays_once_within_its_lifetime_and_across_restarts() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut ledger = open(&dir, terms(true));
        let pay = |ledger: &mut Ledger, amount, at| {
            ledger
                .accept(request(amount), Some("k"), false, at)
                .expect("written")
        };
        assert!(matches!(pay(&mut ledger, "5", NOW), Accepted::New(_)));
        drop(ledger);
        let mut ledger = open(&dir, terms(true));
        assert!(matches!(pay(&mut ledger, "5", NOW), Accepted::Again(_)));
        assert!(matches!(pay(&mut ledger, "6", NOW), Accepted::KeyReused));
        assert_eq!(ledger.find("k", NOW).len(), 1);
        assert_eq!(ledger.find("k", NOW + HOUR).len(), 0, "forgotten");
        assert!(matches!(
            pay(&mut ledger, "5", NOW + HOUR),
            Accepted::New(_)
        ));
        assert_eq!(ledger.all().len(), 2, "the ledger forgets nothing");
    }

    #[test]
    fn without_keys_each_call_pays() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut ledger = open(&dir, terms(false));
        for _ in 0..2 {
            let accepted = ledger
                .accept(request("5"), Some("k"), false, NOW)
                .expect("written");
            assert!(matches!(accepted, Accepted::New(_)));
        }
        assert_eq!(ledger.find("k", NOW + HOUR).len(), 2);
    }

    #[test]
    fn a_look_up_may_lag_behind_the_payment() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut terms = terms(true);
        terms.look_up_lag = HOUR / 2;
        let mut ledger = open(&dir, terms);
        ledger
            .accept(request("5"), Some("k"), false, NOW)
            .expect("written");
        assert_eq!(ledger.find("k", NOW).len(), 0);
        assert_eq!(ledger.find("k", NOW + HOUR / 2).len(), 1);
    }

    #[test]
    fn a_pending_refund_settles_by_itself() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut terms = terms(true);
        terms.settle_after = Some(HOUR);
        let mut ledger = open(&dir, terms);
        for (declined, settled) in [(false, Status::Succeeded), (true, Status::Declined)] {
            let key = format!("{declined}");
            let accepted = ledger
                .accept(request("5"), Some(&key), declined, NOW)
                .expect("written");
            let Accepted::New(entry) = accepted else {
                panic!("{accepted:?}");
            };
            let entry = ledger.get(&entry.id).expect("known");
            assert_eq!(entry.status(NOW), Status::Pending);
            assert_eq!(entry.status(NOW + HOUR), settled);
        }
    }

    #[test]
    fn a_reversed_refund_is_declined_also_after_a_restart() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut ledger = open(&dir, terms(true));
        assert!(!ledger.reverse("k", NOW).expect("read"), "nothing was paid");
        let accepted = ledger.accept(request("5"), Some("k"), false, NOW);
        let Accepted::New(entry) = accepted.expect("written") else {
            panic!("new");
        };
        assert!(ledger.reverse("k", NOW).expect("written"));
        assert!(!ledger.reverse("k", NOW).expect("read"), "once");
        drop(ledger);
        let ledger = open(&dir, terms(true));
        let status = |entry: &Entry| entry.status(NOW);
        assert_eq!(ledger.get(&entry.id).map(status), Some(Status::Declined));
        assert_eq!(ledger.all().len(), 1);
    }

    #[test]
    fn one_process_at_a_time_opens_it_and_half_a_line_is_ignored() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("ledger");
        let ledger = open(&dir, terms(true));
        assert!(Ledger::open(&path, terms(true), false).is_err());
        drop(ledger);
        std::fs::write(&path, r#"{"id":"dev-1","refer"#).expect("written");
        assert_eq!(open(&dir, terms(true)).all().len(), 0);
    }
}
