use strum::IntoEnumIterator;

use super::super::tests::{euro, order, row};
use super::*;
use crate::domain::money::Currency;
use crate::domain::refund::OVERDUE;

use AttemptState as S;

/// A return over 50 EUR of an order over 50 EUR.
struct Case {
    refund: RefundState,
    order: OrderFacts,
}

impl Case {
    fn retry(&self, number: i32) -> Result<i32, String> {
        let next = self.refund.retry(number, &euro(50), &self.order);
        next.map_err(|refusal| refusal.to_string())
    }

    fn mark_paid(&self, number: i32) -> Result<MarkPaid<'_>, String> {
        let paid = self.refund.mark_paid(number);
        paid.map_err(|refusal| refusal.to_string())
    }

    fn mark_not_paid(&self, number: i32) -> Result<&Attempt, String> {
        let attempt = self.refund.mark_not_paid(number);
        attempt.map_err(|refusal| refusal.to_string())
    }
}

fn case(status: Status, states: &[AttemptState]) -> Case {
    let attempts = (1..).zip(states);
    Case {
        refund: RefundState {
            status,
            attempts: attempts
                .map(|(number, state)| row(number, *state, None))
                .collect(),
        },
        order: order(),
    }
}

fn last(states: &[AttemptState]) -> i32 {
    i32::try_from(states.len()).expect("few")
}

/// Which attempt paid, and which become void.
fn marked(paid: &MarkPaid<'_>) -> (i32, Vec<i32>) {
    let void = paid.superfluous.iter().map(|one| one.id.number);
    (paid.by.id.number, void.collect())
}

#[test]
fn p5_a_retry_requires_that_every_attempt_was_closed_without_a_payment() {
    for (status, states, next) in [
        (Status::RefundFailed, &[S::Declined][..], Some(2)),
        (Status::RefundFailed, &[S::Declined, S::Declined], Some(3)),
        (Status::RefundFailed, &[S::Void, S::Declined], Some(3)),
        (Status::RefundFailed, &[], None),
        (Status::RefundPending, &[S::Parked], None),
        (Status::RefundPending, &[S::Declined], None),
        (Status::Refunded, &[S::Declined], None),
        (Status::Approved, &[], None),
    ] {
        assert_eq!(
            case(status, states).retry(last(states)).ok(),
            next,
            "{status} {states:?}"
        );
    }
    for state in S::iter() {
        let harmless = matches!(state, S::Declined | S::Void | S::Reversed);
        let case = case(Status::RefundFailed, &[state, S::Declined]);
        assert_eq!(case.retry(2).is_ok(), harmless, "{state:?}");
    }
}

#[test]
fn p8_only_an_attempt_that_waits_for_a_person_is_marked() {
    for status in Status::iter() {
        for state in S::iter() {
            let case = case(status, &[state]);
            let parked = status == Status::RefundPending && state == S::Parked;
            let failed = status == Status::RefundFailed && !state.is_open();
            assert_eq!(
                case.mark_paid(1).is_ok(),
                parked || failed,
                "{status} {state:?}"
            );
            assert_eq!(case.mark_not_paid(1).is_ok(), parked, "{status} {state:?}");
        }
    }
    assert!(case(Status::RefundFailed, &[]).mark_paid(1).is_err());
    let earlier_open = case(Status::RefundPending, &[S::Unknown, S::Parked]);
    assert!(earlier_open.mark_paid(2).is_err());
}

#[test]
fn p5_a_payment_by_an_earlier_attempt_is_not_attributed_to_the_last() {
    let case = case(Status::RefundPending, &[S::Succeeded, S::Parked]);
    let paid = case.mark_paid(1).expect("allowed");
    assert_eq!(marked(&paid), (1, vec![2]));
    let why = case.mark_paid(2).expect_err("attempt 1 has paid");
    assert!(why.contains("reported that attempt 1 has paid"), "{why}");
    assert!(case.mark_not_paid(2).is_err());
}

#[test]
fn p5_no_more_is_tried_than_what_is_left_of_the_order() {
    let mut failed = case(Status::RefundFailed, &[S::Declined]);
    failed.order.refunded_here = 1.into();
    let why = failed.retry(1).expect_err("too much");
    assert!(why.contains("49.00 EUR of 50.00 EUR"), "{why}");
    failed.order = order();
    failed.order.refunded_by_shop = 1.into();
    assert!(failed.retry(1).is_err(), "the shop has refunded some");
    failed.order = order();
    failed.order.total.currency = Currency::parse("USD").expect("a code");
    assert!(failed.retry(1).is_err(), "another currency");
}

/// Its attempt was made by a version that did not check it. What was paid all the same may be recorded.
#[test]
fn p5_an_amount_that_its_currency_cannot_express_is_not_tried_again() {
    let failed = case(Status::RefundFailed, &[S::Declined]);
    let amount = Money::new("49.995".parse().expect("a decimal"), euro(50).currency);
    let retried = failed.refund.retry(1, &amount, &failed.order);
    assert_eq!(retried, Err(Refusal::NotPayable(amount)));
    assert!(failed.mark_paid(1).is_ok());
}

#[test]
fn p5_a_decision_is_about_the_attempt_that_was_looked_up() {
    let failed = case(Status::RefundFailed, &[S::Declined, S::Declined]);
    let parked = case(Status::RefundPending, &[S::Declined, S::Parked]);
    for (number, reason) in [(1, "not its last attempt, which is 2"), (3, "no attempt 3")] {
        for why in [
            failed.retry(number).expect_err("another attempt"),
            parked
                .mark_not_paid(number)
                .map(drop)
                .expect_err("another attempt"),
        ] {
            assert!(why.contains(reason), "{why}");
        }
    }
    for (case, number, expected) in [
        (&failed, 1, (1, vec![])),
        (&failed, 2, (2, vec![])),
        (&parked, 1, (1, vec![2])),
        (&parked, 2, (2, vec![])),
    ] {
        let paid = case.mark_paid(number).expect("any may have paid");
        assert_eq!(marked(&paid), expected);
    }
    assert!(parked.mark_paid(3).is_err());
}

#[test]
fn p5_an_attempt_that_paid_by_the_gateways_report_is_not_marked_not_paid() {
    let mut case = case(Status::RefundPending, &[S::Declined, S::Parked]);
    for (reason, allowed) in [
        (None, true),
        (Some("not_found"), true),
        (Some("paid_more_than_order_total"), false),
        (Some("several_found"), false),
        (Some("paid_twice"), false),
    ] {
        case.refund.attempts[1].last_error = reason.map(str::to_owned);
        assert_eq!(case.mark_not_paid(2).is_ok(), allowed, "{reason:?}");
        assert_eq!(case.mark_paid(1).is_ok(), allowed, "{reason:?}");
        assert!(case.mark_paid(2).is_ok(), "the way out");
    }
}

#[test]
fn only_an_attempt_that_no_consumer_carries_on_is_given_up() {
    for (status, state, late, allowed) in [
        (Status::RefundPending, S::Unknown, true, true),
        (Status::RefundPending, S::Claimed, true, true),
        (Status::RefundPending, S::Unknown, false, false),
        (Status::RefundPending, S::Parked, true, false),
        (Status::Refunded, S::Succeeded, true, false),
    ] {
        let case = case(status, &[S::Declined, state]);
        let due = case.refund.attempts[1].next_check_at;
        let now = due + OVERDUE + time::Duration::seconds(if late { 1 } else { 0 });
        let given_up = case.refund.give_up(2, now);
        assert_eq!(given_up.is_ok(), allowed, "{status:?} {state:?} {late}");
        assert!(case.refund.give_up(1, now).is_err(), "not the last one");
    }
}
