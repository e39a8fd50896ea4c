//! What the policy has said about a token within the present second, so that a client's next request costs no evaluation.
//!
//! Must stay true: the same question within the same second, and no other, gets the remembered answer. That is exact,
//! not fresh enough: the policy sees whole seconds, as tokens have them, and a question holds all else that may differ.

use std::sync::{Mutex, MutexGuard};

use super::{Denied, Request};

/// Different questions about one token that are remembered, about 64 bytes each. Only a
/// Biscuit tells returns apart.
const MOST: usize = 16;

/// Of one token, by the one policy of a process.
#[derive(Debug, Default)]
pub(in super::super) struct Judged {
    present: Mutex<Present>,
}

#[derive(Debug, Default)]
struct Present {
    /// Unix seconds.
    second: u64,
    answers: Vec<(Request, Result<(), Denied>)>,
}

impl Judged {
    /// The answer of this second, or what `ask` says.
    pub(super) fn of(
        &self,
        question: Request,
        second: u64,
        ask: impl FnOnce() -> Result<(), Denied>,
    ) -> Result<(), Denied> {
        if let Some(known) = self.present(second).answer(&question) {
            return known;
        }
        // Without the lock: two that ask at once get the same answer twice.
        let answer = ask();
        let mut present = self.present(second);
        let lasts = match answer {
            // That the time was not enough says nothing about the next time; why a token is no good is long.
            Err(Denied::Undecided | Denied::Token(_)) => false,
            Ok(()) | Err(Denied::Forbidden | Denied::NotYours) => true,
        };
        if lasts && present.answers.len() < MOST {
            present.answers.push((question, answer.clone()));
        }
        answer
    }

    /// Of another second, also of an earlier one, nothing is left.
    fn present(&self, second: u64) -> MutexGuard<'_, Present> {
        let mut present = self.present.lock().expect("no panic under this lock");
        if present.second != second {
            present.second = second;
            present.answers.clear();
        }
        present
    }
}

impl Present {
    fn answer(&self, question: &Request) -> Option<Result<(), Denied>> {
        let mut known = self.answers.iter();
        let (_, answer) = known.find(|(known, _)| known == question)?;
        Some(answer.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Operation;
    use super::*;
    use crate::domain::ids::{CustomerId, ReturnId};

    fn about(id: i64) -> Request {
        Request::about(Operation::ReturnsRead, ReturnId(id), Some(CustomerId(7)))
    }

    #[test]
    fn the_same_question_is_asked_once_a_second() {
        let judged = Judged::default();
        let allowed = || Ok(());
        let never = || panic!("asked again");
        assert_eq!(judged.of(about(1), 100, allowed), Ok(()));
        assert_eq!(judged.of(about(1), 100, never), Ok(()));
        for (question, second) in [(about(2), 100), (about(1), 101), (about(1), 100)] {
            let denied = || Err(Denied::Forbidden);
            assert_eq!(judged.of(question, second, denied), Err(Denied::Forbidden));
            assert_eq!(judged.of(question, second, never), Err(Denied::Forbidden));
        }
    }

    #[test]
    fn what_was_not_decided_is_asked_again() {
        let judged = Judged::default();
        let undecided = judged.of(about(1), 100, || Err(Denied::Undecided));
        assert_eq!(undecided, Err(Denied::Undecided));
        assert_eq!(judged.of(about(1), 100, || Ok(())), Ok(()));
    }

    #[test]
    fn no_more_is_kept_than_so_many() {
        let judged = Judged::default();
        for id in 0..100 {
            assert_eq!(judged.of(about(id), 100, || Ok(())), Ok(()));
        }
        assert_eq!(judged.present(100).answers.len(), MOST);
        let asked = judged.of(about(99), 100, || Err(Denied::Forbidden));
        assert_eq!(asked, Err(Denied::Forbidden));
    }
}
