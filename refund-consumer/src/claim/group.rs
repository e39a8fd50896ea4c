//! What one claim looks at: returns named by records or found by a scan, and records that name none.

use std::collections::HashMap;

use shared::domain::ids::ReturnId;
use shared::domain::trace_context::TraceContext;

use crate::dead_letter::{DeadLetter, Reason};
use crate::message::{self, NewReturn, Record};
use crate::store::Filing;

/// A return to look at, and the record that named it if one did.
#[derive(Debug, Clone)]
pub(super) struct Notice<'a> {
    pub(super) return_id: ReturnId,
    named_by: Option<(&'a Record, NewReturn)>,
}

impl<'a> Notice<'a> {
    /// The record as a dead letter; `None` if a scan found the return.
    pub(super) fn letter(&self, reason: Reason) -> Option<DeadLetter<'a>> {
        self.named_by
            .as_ref()
            .map(|(record, _)| DeadLetter { record, reason })
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Group<'a> {
    pub(super) notices: Vec<Notice<'a>>,
    pub(super) letters: Vec<DeadLetter<'a>>,
}

/// A notice beside what the database says about its return.
#[derive(Debug, Clone)]
pub(super) struct Matched {
    /// Its place among the group's notices.
    pub(super) notice: usize,
    pub(super) filing: Filing,
    /// By a record, so the inbox remembers it.
    pub(super) named: bool,
    pub(super) trace: Option<TraceContext>,
}

impl<'a> Group<'a> {
    pub(super) fn of_records(records: &'a [Record]) -> Self {
        let mut group = Self::default();
        for record in records {
            match message::parse(record) {
                Ok(new) => group.notices.push(Notice {
                    return_id: new.return_id,
                    named_by: Some((record, new)),
                }),
                Err(reason) => group.letters.push(DeadLetter { record, reason }),
            }
        }
        group
    }

    pub(super) fn of_found(found: &[ReturnId]) -> Self {
        let notice = |return_id: &ReturnId| Notice {
            return_id: *return_id,
            named_by: None,
        };
        Self {
            notices: found.iter().map(notice).collect(),
            letters: Vec::new(),
        }
    }

    pub(super) fn of_one(notice: Notice<'a>) -> Self {
        Self {
            notices: vec![notice],
            letters: Vec::new(),
        }
    }

    pub(super) fn of_letters(letters: Vec<DeadLetter<'a>>) -> Self {
        Self {
            notices: Vec::new(),
            letters,
        }
    }

    /// What is left to do when only these of its notices were left out.
    pub(super) fn only(&self, left_out: &[usize]) -> Self {
        let notices = left_out.iter().filter_map(|at| self.notices.get(*at));
        Self {
            notices: notices.cloned().collect(),
            letters: Vec::new(),
        }
    }

    /// How many of its notices came by a record.
    pub(super) fn records(&self) -> u64 {
        let named = self
            .notices
            .iter()
            .filter(|notice| notice.named_by.is_some());
        u64::try_from(named.count()).unwrap_or(u64::MAX)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.notices.is_empty() && self.letters.is_empty()
    }

    pub(super) fn returns(&self) -> Vec<ReturnId> {
        sorted(self.notices.iter().map(|notice| notice.return_id))
    }

    /// Holds each notice against the return's filing; what does not fit joins the dead letters. A return that a scan
    /// found has a filing, or is gone.
    pub(super) fn match_filings(
        &self,
        filings: &HashMap<ReturnId, Filing>,
    ) -> (Vec<Matched>, Vec<DeadLetter<'a>>) {
        let mut matched = Vec::with_capacity(self.notices.len());
        let mut letters = self.letters.clone();
        for (at, notice) in self.notices.iter().enumerate() {
            let new = notice.named_by.as_ref().map(|(_, new)| new);
            match fit(filings.get(&notice.return_id), new) {
                Ok(filing) => matched.push(Matched {
                    notice: at,
                    filing,
                    named: new.is_some(),
                    trace: new.and_then(|new| new.trace.clone()),
                }),
                Err(reason) => letters.extend(notice.letter(reason)),
            }
        }
        (matched, letters)
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
            trace: None,
        }
    }

    #[test]
    fn a_record_must_fit_the_return_it_names() {
        let filing = filing();
        for (said, fits) in [
            (new(10, Some(7)), Ok(filing)),
            (new(10, None), Ok(filing)),
            (new(11, Some(7)), Err(Reason::OtherOrder)),
            (new(10, Some(8)), Err(Reason::OtherEvent)),
        ] {
            assert_eq!(fit(Some(&filing), Some(&said)), fits, "{said:?}");
        }
        assert_eq!(fit(None, Some(&new(10, None))), Err(Reason::UnknownReturn));
        assert_eq!(fit(Some(&filing), None), Ok(filing));
    }

    /// The bad record about a held return is kept at once; only the good one is tried again.
    #[test]
    fn p10_what_is_left_out_are_notices_not_their_returns() {
        let record = |order: i64| Record {
            payload: Some(format!(r#"{{"return_id":1,"order_id":{order}}}"#).into_bytes()),
            headers_readable: true,
            ..Record::default()
        };
        let records = [record(11), record(10)];
        let group = Group::of_records(&records);
        let filings = HashMap::from([(ReturnId(1), filing())]);
        let (matched, letters) = group.match_filings(&filings);
        let left_out: Vec<usize> = matched.iter().map(|one| one.notice).collect();
        let rest = group.only(&left_out);
        assert_eq!((left_out, letters.len()), (vec![1], 1));
        assert_eq!((rest.records(), rest.letters.len()), (1, 0));
        let (matched, letters) = rest.match_filings(&filings);
        assert_eq!((matched.len(), letters.len()), (1, 0));
    }
}
