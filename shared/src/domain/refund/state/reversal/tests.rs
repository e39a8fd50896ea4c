use std::time::Duration;

use super::super::tests::{ME, NOW, PAUSES, order, report, row};
use super::*;
use crate::domain::refund::{Attempt, ParkReason, RECHECKS};

/// Paid, and taken over by us for its look-up.
fn taken(number: i32) -> Attempt {
    let mut paid = row(number, AttemptState::Claimed, None);
    paid.succeed("ref", NOW - RECHECKS[0]);
    paid.owner = Some(ME);
    paid.call_deadline = Some(NOW + Duration::from_secs(30));
    paid.recheck_at = paid.call_deadline;
    paid
}

fn reversed() -> Outcome {
    Outcome::Reversed {
        code: "account_closed".to_owned(),
        order_has_open_return: false,
    }
}

fn settle(state: &mut RefundState, outcome: Outcome) -> SettleStep {
    let mut order = order();
    order.refunded_here = order.total.amount;
    state.settle(&report(1, outcome), &mut order, NOW, PAUSES)
}

fn refunded(attempts: Vec<Attempt>) -> RefundState {
    RefundState {
        status: Status::Refunded,
        attempts,
    }
}

#[test]
fn p5_a_reversed_refund_is_unpaid_and_frees_the_order() {
    let mut state = refunded(vec![taken(1)]);
    let mut order = order();
    order.refunded_here = order.total.amount;
    let step = state.settle(&report(1, reversed()), &mut order, NOW, PAUSES);
    assert_eq!(step.settled, Settled::Reversed);
    let (action, detail) = step.change.expect("an event");
    assert_eq!(action, Action::Reverse);
    assert_eq!(
        (&detail["gateway_ref"], &detail["code"]),
        (&json!("ref"), &json!("account_closed"))
    );
    assert_eq!(state.status, Status::RefundFailed);
    let row = &state.attempts[0];
    assert_eq!(
        (row.state, row.owner, row.recheck_at),
        (AttemptState::Reversed, None, None)
    );
    assert!(order.refunded_here.is_zero());
    assert_eq!(state.retry(1, &row.amount, &order), Ok(2));
}

/// The provider repeats its notification of a refund that the shop has paid in another way meanwhile.
#[test]
fn p5_the_providers_word_alone_does_not_undo_what_two_persons_marked_as_paid() {
    let mut marked = taken(1);
    marked.succeeded_at = None;
    let mut state = refunded(vec![marked]);
    let step = settle(&mut state, reversed());
    assert_eq!(
        step.change.map(|(action, _)| action),
        Some(Action::Disagreement)
    );
    assert_eq!(state.status, Status::Refunded);
    assert_eq!(
        (state.attempts[0].state, state.attempts[0].recheck_at),
        (AttemptState::Succeeded, None)
    );
}

/// A response to an earlier call may be late: the provider declined, then paid after all, and another process found out.
#[test]
fn p5_only_the_look_up_that_owns_the_attempt_reverses_it() {
    let declined = || Outcome::Declined {
        gateway_ref: "ref".to_owned(),
        code: "card_expired".to_owned(),
    };
    let mut free = taken(1);
    free.owner = None;
    let mut taken_again = taken(1);
    taken_again.call_deadline = Some(NOW + Duration::from_secs(90));
    for attempt in [free, taken_again] {
        for (outcome, settled) in [
            (reversed(), Settled::NotOwner),
            (declined(), Settled::Disagreed),
        ] {
            let mut state = refunded(vec![attempt.clone()]);
            assert_eq!(settle(&mut state, outcome).settled, settled);
            assert_eq!(state.status, Status::Refunded);
            assert_eq!(state.attempts[0], attempt);
        }
    }
}

#[test]
fn a_confirmed_payment_is_looked_up_at_its_next_date() {
    let mut state = refunded(vec![taken(1)]);
    let paid = Outcome::Succeeded {
        gateway_ref: "ref".to_owned(),
    };
    assert_eq!(settle(&mut state, paid), only(Settled::Agreed));
    let row = &state.attempts[0];
    assert_eq!((row.state, row.owner), (AttemptState::Succeeded, None));
    assert_eq!(row.recheck_at, Some(NOW - RECHECKS[0] + RECHECKS[1]));
}

/// An outage of the provider, or an archived refund, takes no payment back.
#[test]
fn p5_what_is_no_reversal_changes_no_status() {
    let soon = Some(NOW + RECHECKS[0]);
    let next = Some(NOW - RECHECKS[0] + RECHECKS[1]);
    let not_found = Outcome::Park {
        reason: ParkReason::NotFound,
    };
    let unreachable = Outcome::StillOpen {
        error: "timeout",
        looked_up: false,
        answer: None,
    };
    let pending = Outcome::Pending {
        gateway_ref: "ref".to_owned(),
    };
    let other = Outcome::Succeeded {
        gateway_ref: "another".to_owned(),
    };
    for (outcome, settled, recheck_at) in [
        (unreachable, Settled::Postponed, soon),
        (not_found, Settled::Disagreed, next),
        (pending, Settled::Disagreed, next),
        (other, Settled::Disagreed, next),
    ] {
        let mut state = refunded(vec![taken(1)]);
        assert_eq!(settle(&mut state, outcome.clone()).settled, settled);
        let row = &mut state.attempts[0];
        assert_eq!(
            (state.status, row.state, row.recheck_at),
            (Status::Refunded, AttemptState::Succeeded, recheck_at),
            "{outcome:?}"
        );
        // The same answer at the next look-up is not recorded again.
        let doubt = row.last_error.clone();
        *row = taken(1);
        row.last_error = doubt;
        assert_eq!(settle(&mut state, outcome), only(Settled::Postponed));
    }
}

/// Only one return of an order may be open.
#[test]
fn a_reversal_waits_for_another_open_return_of_the_order() {
    let mut state = refunded(vec![taken(1)]);
    let waits = Outcome::Reversed {
        code: "account_closed".to_owned(),
        order_has_open_return: true,
    };
    assert_eq!(settle(&mut state, waits).settled, Settled::Disagreed);
    assert_eq!(state.attempts[0].recheck_at, Some(NOW + RECHECKS[0]));
    assert_eq!(state.attempts[0].state, AttemptState::Succeeded);
}

/// One of two payments came back: what people have to know, but the customer still has the other.
#[test]
fn a_return_that_another_attempt_has_paid_stays_refunded() {
    let mut state = refunded(vec![taken(1), row(2, AttemptState::Succeeded, None)]);
    assert_eq!(settle(&mut state, reversed()).settled, Settled::Disagreed);
    assert_eq!(state.status, Status::Refunded);
    assert_eq!(state.attempts[0].state, AttemptState::Reversed);
}

#[test]
fn a_success_from_before_the_reversal_is_no_payment_and_another_one_is() {
    for (gateway_ref, settled) in [("ref", Settled::Agreed), ("another", Settled::Refunded)] {
        let mut reversed = row(1, AttemptState::Reversed, None);
        reversed.gateway_ref = Some("ref".to_owned());
        let mut state = RefundState {
            status: Status::RefundFailed,
            attempts: vec![reversed],
        };
        let success = Outcome::Succeeded {
            gateway_ref: gateway_ref.to_owned(),
        };
        let step = state.settle(&report(1, success), &mut order(), NOW, PAUSES);
        assert_eq!(step.settled, settled, "{gateway_ref}");
    }
}
