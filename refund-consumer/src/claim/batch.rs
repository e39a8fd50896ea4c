//! The input of one claim: returns named by records or found by a scan, and records that name none.

use std::collections::HashMap;
use std::sync::Arc;

use shared::domain::ids::ReturnId;
use shared::domain::trace_context::TraceContext;
use shared::runtime::trace::Span;

use crate::dead_letter::DeadLetter;
use crate::message::{self, NewReturn, Reason, Record};
use crate::spans;
use crate::store::Filing;

/// A return that may be claimed, and the record that named it if one did.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) return_id: ReturnId,
    named_by: Option<NamedBy>,
}

#[derive(Debug, Clone)]
struct NamedBy {
    record: Arc<Record>,
    new: NewReturn,
    span: Span,
    /// What changes are written under. `None`: the record has no context, and the return's own trace goes on.
    trace: Option<TraceContext>,
}

impl Candidate {
    /// The record as a dead letter; `None` if a scan found the return.
    pub(super) fn dead_letter(&self, reason: Reason) -> Option<DeadLetter> {
        self.named_by.as_ref().map(|named| {
            named.span.fail(reason.as_str());
            DeadLetter {
                record: Arc::clone(&named.record),
                reason,
            }
        })
    }

    fn record(&self) -> Option<Arc<Record>> {
        self.named_by
            .as_ref()
            .map(|named| Arc::clone(&named.record))
    }

    /// Of the record that named it.
    pub(super) fn span(&self) -> Option<&Span> {
        self.named_by.as_ref().map(|named| &named.span)
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Batch {
    pub(super) candidates: Vec<Candidate>,
    pub(super) dead_letters: Vec<DeadLetter>,
}

/// A candidate and its return's filing.
#[derive(Debug, Clone)]
pub(super) struct Matched {
    /// Its index among the batch's candidates.
    pub(super) index: usize,
    pub(super) filing: Filing,
    /// The record that named it, and its span: the inbox remembers it. `None`: a scan found it.
    pub(super) named_by: Option<(Arc<Record>, Span)>,
    /// What changes are written under. `None`: the return's own trace goes on.
    pub(super) trace: Option<TraceContext>,
}

impl Batch {
    /// `group`: our consumer group.
    pub(super) fn of_records(records: &[Arc<Record>], group: &str) -> Self {
        let mut batch = Self::default();
        for record in records {
            let sender = record.trace();
            let span = spans::process(record, sender.as_ref(), group);
            let trace = sender.map(|_| span.context().clone());
            let parsed = message::parse(record);
            let record = Arc::clone(record);
            match parsed {
                Ok(new) => batch.candidates.push(Candidate {
                    return_id: new.return_id,
                    named_by: Some(NamedBy {
                        record,
                        new,
                        span,
                        trace,
                    }),
                }),
                Err(reason) => {
                    span.fail(reason.as_str());
                    batch.dead_letters.push(DeadLetter { record, reason });
                }
            }
        }
        batch
    }

    pub(super) fn of_found(found: &[ReturnId]) -> Self {
        let candidate = |return_id: &ReturnId| Candidate {
            return_id: *return_id,
            named_by: None,
        };
        Self {
            candidates: found.iter().map(candidate).collect(),
            dead_letters: Vec::new(),
        }
    }

    pub(super) fn of_one(candidate: Candidate) -> Self {
        Self {
            candidates: vec![candidate],
            dead_letters: Vec::new(),
        }
    }

    pub(super) fn of_dead_letters(dead_letters: Vec<DeadLetter>) -> Self {
        Self {
            candidates: Vec::new(),
            dead_letters,
        }
    }

    /// Only the candidates of these indexes.
    pub(super) fn only(&self, left_out: &[usize]) -> Self {
        let candidates = left_out.iter().filter_map(|at| self.candidates.get(*at));
        Self {
            candidates: candidates.cloned().collect(),
            dead_letters: Vec::new(),
        }
    }

    /// How many of its candidates were named by a record.
    pub(super) fn records(&self) -> u64 {
        let named = self
            .candidates
            .iter()
            .filter(|candidate| candidate.named_by.is_some());
        u64::try_from(named.count()).unwrap_or(u64::MAX)
    }

    /// Of the records that named its candidates.
    pub(super) fn spans(&self) -> impl Iterator<Item = &Span> {
        self.candidates.iter().filter_map(Candidate::span)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.candidates.is_empty() && self.dead_letters.is_empty()
    }

    pub(super) fn returns(&self) -> Vec<ReturnId> {
        sorted(self.candidates.iter().map(|candidate| candidate.return_id))
    }

    /// Compares each candidate with its return's filing; a record that does not fit becomes a dead letter. A return that a
    /// scan found has a filing, or was deleted.
    pub(super) fn match_filings(
        &self,
        filings: &HashMap<ReturnId, Filing>,
    ) -> (Vec<Matched>, Vec<DeadLetter>) {
        let mut matched = Vec::with_capacity(self.candidates.len());
        let mut dead_letters = self.dead_letters.clone();
        for (at, candidate) in self.candidates.iter().enumerate() {
            let new = candidate.named_by.as_ref().map(|named| &named.new);
            match fit(filings.get(&candidate.return_id), new) {
                Ok(filing) => matched.push(Matched {
                    index: at,
                    filing,
                    named_by: candidate.record().zip(candidate.span().cloned()),
                    trace: candidate
                        .named_by
                        .as_ref()
                        .and_then(|named| named.trace.clone()),
                }),
                Err(reason) => dead_letters.extend(candidate.dead_letter(reason)),
            }
        }
        (matched, dead_letters)
    }
}

fn fit(filing: Option<&Filing>, new: Option<&NewReturn>) -> Result<Filing, Reason> {
    let filing = *filing.ok_or(Reason::UnknownReturn)?;
    if new.is_some_and(|new| new.order_id != filing.order_id) {
        return Err(Reason::OtherOrder);
    }
    let event = new.and_then(|new| new.event_id);
    if event.is_some_and(|event| event != filing.first_event) {
        return Err(Reason::OtherEvent);
    }
    Ok(filing)
}

/// Ascending, each once: the order in which rows are locked.
pub(crate) fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_unstable();
    items.dedup();
    items
}

#[cfg(test)]
mod tests {
    use shared::domain::ids::{EventId, OrderId};
    use uuid::Uuid;

    use super::*;

    fn filing() -> Filing {
        Filing {
            return_id: ReturnId(1),
            order_id: OrderId(10),
            first_event: EventId(Uuid::from_u128(7)),
        }
    }

    fn new(order: i64, event: Option<u128>) -> NewReturn {
        NewReturn {
            return_id: ReturnId(1),
            order_id: OrderId(order),
            event_id: event.map(|id| EventId(Uuid::from_u128(id))),
        }
    }

    #[test]
    fn a_record_must_fit_the_return_it_names() {
        let filing = filing();
        for (named, fits) in [
            (new(10, Some(7)), Ok(filing)),
            (new(10, None), Ok(filing)),
            (new(11, Some(7)), Err(Reason::OtherOrder)),
            (new(10, Some(8)), Err(Reason::OtherEvent)),
        ] {
            assert_eq!(fit(Some(&filing), Some(&named)), fits, "{named:?}");
        }
        assert_eq!(fit(None, Some(&new(10, None))), Err(Reason::UnknownReturn));
        assert_eq!(fit(Some(&filing), None), Ok(filing));
    }

    /// The bad record about a held return becomes a dead letter at once; only the good one is tried again.
    #[test]
    fn p10_candidates_are_left_out_and_not_their_returns() {
        let record = |order: i64| {
            Arc::new(Record {
                payload: Some(format!(r#"{{"return_id":1,"order_id":{order}}}"#).into_bytes()),
                headers_readable: true,
                ..Record::default()
            })
        };
        let records = [record(11), record(10)];
        let batch = Batch::of_records(&records, "group");
        let filings = HashMap::from([(ReturnId(1), filing())]);
        let (matched, dead_letters) = batch.match_filings(&filings);
        let left_out: Vec<usize> = matched.iter().map(|one| one.index).collect();
        let rest = batch.only(&left_out);
        assert_eq!((left_out, dead_letters.len()), (vec![1], 1));
        assert_eq!((rest.records(), rest.dead_letters.len()), (1, 0));
        let (matched, dead_letters) = rest.match_filings(&filings);
        assert_eq!((matched.len(), dead_letters.len()), (1, 0));
    }
}
