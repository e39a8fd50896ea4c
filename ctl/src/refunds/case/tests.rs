use shared::domain::attempt::{AttemptId, IdempotencyKey};
use shared::domain::ids::OrderId;
use shared::domain::money::Currency;
use time::macros::datetime;

use super::*;

use AttemptState as S;

fn euro(amount: i64) -> Money {
    Money::new(amount.into(), Currency::parse("EUR").expect("a code"))
}

fn case(status: Status, states: &[AttemptState]) -> Case {
    let now = datetime!(2026-11-23 12:00 UTC);
    let attempt = |(at, state): (usize, &AttemptState)| Attempt {
        id: AttemptId {
            return_id: ReturnId(1),
            number: i32::try_from(at).expect("few") + 1,
        },
        key: IdempotencyKey("k".to_owned()),
        amount: euro(50),
        state: *state,
        owner: None,
        call_deadline: None,
        first_sent_at: None,
        next_check_at: now,
        checks: 0,
        gateway: None,
        gateway_ref: None,
        last_error: None,
        created_at: now,
        updated_at: now,
    };
    Case {
        return_id: ReturnId(1),
        customer_id: CustomerId(42),
        status,
        version: 3,
        refund_amount: euro(50),
        order: OrderFacts {
            id: OrderId(5),
            customer_id: CustomerId(42),
            total: euro(50),
            refunded_amount: euro(0),
            status: "delivered".to_owned(),
            delivered_at: None,
        },
        attempts: states.iter().enumerate().map(attempt).collect(),
    }
}

fn last(states: &[AttemptState]) -> i32 {
    i32::try_from(states.len()).expect("few")
}

/// Which attempt paid, and which become void.
fn marked(paid: &Paid<'_>) -> (i32, Vec<i32>) {
    let void = paid.superfluous.iter().map(|one| one.id.number);
    (paid.by.id.number, void.collect())
}

#[test]
fn p5_a_retry_wants_every_attempt_closed_without_a_payment() {
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
    for state in S::ALL {
        let harmless = matches!(state, S::Declined | S::Void);
        let case = case(Status::RefundFailed, &[state, S::Declined]);
        assert_eq!(case.retry(2).is_ok(), harmless, "{state:?}");
    }
}

#[test]
fn p8_only_what_waits_for_a_person_is_marked() {
    for status in Status::ALL {
        for state in S::ALL {
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
fn p5_what_an_earlier_attempt_paid_is_not_said_of_the_last() {
    let case = case(Status::RefundPending, &[S::Succeeded, S::Parked]);
    let paid = case.mark_paid(1).expect("allowed");
    assert_eq!(marked(&paid), (1, vec![2]));
    let why = case
        .mark_paid(2)
        .expect_err("the gateway told of attempt 1");
    assert!(why.contains("told that attempt 1 has paid"), "{why}");
    assert!(case.mark_not_paid(2).is_err());
}

#[test]
fn p5_no_more_than_what_is_left_of_the_order() {
    let mut parked = case(Status::RefundPending, &[S::Parked]);
    let mut failed = case(Status::RefundFailed, &[S::Declined]);
    for case in [&mut parked, &mut failed] {
        case.order.refunded_amount = euro(1);
    }
    for why in [
        parked.mark_paid(1).expect_err("too much"),
        failed.mark_paid(1).expect_err("too much"),
        failed.retry(1).expect_err("too much"),
    ] {
        assert!(why.contains("49.00 EUR of 50.00 EUR"), "{why}");
    }
    assert!(parked.mark_not_paid(1).is_ok(), "nothing is counted");
    parked.order.refunded_amount = Money::new(0.into(), Currency::parse("USD").expect("a code"));
    assert!(parked.mark_paid(1).is_err(), "another currency");
}

#[test]
fn p5_a_decision_is_about_the_attempt_that_was_looked_up() {
    let failed = case(Status::RefundFailed, &[S::Declined, S::Declined]);
    let parked = case(Status::RefundPending, &[S::Declined, S::Parked]);
    for (number, told) in [(1, "not its last attempt, which is 2"), (3, "no attempt 3")] {
        for why in [
            failed.retry(number).expect_err("another attempt"),
            parked
                .mark_not_paid(number)
                .map(drop)
                .expect_err("another attempt"),
        ] {
            assert!(why.contains(told), "{why}");
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
fn p5_what_the_gateway_said_it_paid_is_not_marked_not_paid() {
    let mut case = case(Status::RefundPending, &[S::Declined, S::Parked]);
    for (reason, allowed) in [
        (None, true),
        (Some("not_found"), true),
        (Some("paid_more_than_order_total"), false),
        (Some("several_found"), false),
        (Some("paid_twice"), false),
    ] {
        case.attempts[1].last_error = reason.map(str::to_owned);
        assert_eq!(case.mark_not_paid(2).is_ok(), allowed, "{reason:?}");
        assert_eq!(case.mark_paid(1).is_ok(), allowed, "{reason:?}");
        assert!(case.mark_paid(2).is_ok(), "the way out");
    }
}

#[test]
fn the_gateways_own_reference_is_not_replaced() {
    let mut case = case(Status::RefundPending, &[S::Parked]);
    assert!(
        case.mark_paid(1)
            .expect("allowed")
            .accepts(Some("typed"))
            .is_ok()
    );
    case.attempts[0].gateway_ref = Some("own".to_owned());
    let paid = case.mark_paid(1).expect("allowed");
    assert!(paid.accepts(None).is_ok() && paid.accepts(Some("own")).is_ok());
    assert!(paid.accepts(Some("typed")).is_err());
}
