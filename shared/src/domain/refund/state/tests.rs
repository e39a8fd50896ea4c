use rust_decimal::Decimal;
use time::macros::datetime;
use uuid::Uuid;

use super::*;
use crate::domain::ids::{OrderId, ReturnId};
use crate::domain::money::{Currency, Money};
use crate::domain::refund::{AttemptId, ProviderKey};
use AttemptState as S;

pub(super) const NOW: OffsetDateTime = datetime!(2026-11-23 12:00 UTC);
pub(super) const ME: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);
const LOOK_UP: Duration = Duration::from_secs(600);
const UNSENT: Duration = Duration::from_secs(1);
/// They grow with the number of look-ups.
pub(super) const PAUSES: Pauses<'static> = Pauses {
    look_up: &|checks| LOOK_UP * (checks + 1),
    unsent: &|checks| UNSENT * (checks + 1),
};

pub(in crate::domain::refund) fn euro(amount: i64) -> Money {
    Money::new(amount.into(), Currency::parse("EUR").expect("a code"))
}

pub(in crate::domain::refund) fn order() -> OrderFacts {
    OrderFacts {
        id: OrderId(9),
        total: euro(50),
        refunded_by_shop: Decimal::ZERO,
        refunded_here: Decimal::ZERO,
        status: "delivered".to_owned(),
        delivered_at: Some(NOW),
    }
}

fn id(number: i32) -> AttemptId {
    AttemptId {
        return_id: ReturnId(1),
        number,
    }
}

pub(in crate::domain::refund) fn row(
    number: i32,
    state: AttemptState,
    owner: Option<Uuid>,
) -> Attempt {
    Attempt {
        id: id(number),
        key: ProviderKey("k".to_owned()),
        amount: euro(50),
        state,
        owner,
        call_deadline: owner.map(|_| NOW + Duration::from_secs(30)),
        first_sent_at: Some(NOW),
        sent_with_key: true,
        next_check_at: NOW,
        planned_check_at: None,
        checks: 0,
        tries: 0,
        refusals: 0,
        provider_answer: None,
        gateway: Some("fake".to_owned()),
        gateway_ref: None,
        last_error: None,
        succeeded_at: None,
        recheck_at: None,
        created_at: NOW,
        updated_at: NOW,
    }
}

pub(super) fn report(number: i32, outcome: Outcome) -> OutcomeReport {
    OutcomeReport {
        attempt: id(number),
        outcome,
        reporter: ME,
        owned_until: NOW + Duration::from_secs(30),
        unsent: None,
    }
}

fn success() -> Outcome {
    Outcome::Succeeded {
        gateway_ref: "ref".to_owned(),
    }
}

fn declined() -> Outcome {
    Outcome::Declined {
        gateway_ref: "ref".to_owned(),
        code: "card_expired".to_owned(),
    }
}

/// After one report: what it led to, the action, states of the attempts, status, money.
#[derive(Debug, PartialEq)]
struct After {
    settled: Settled,
    action: Option<Action>,
    states: Vec<AttemptState>,
    status: Status,
    refunded: i64,
}

fn settle(status: Status, attempts: Vec<Attempt>, report: &OutcomeReport) -> After {
    let mut state = RefundState { status, attempts };
    let mut order = order();
    let step = state.settle(report, &mut order, NOW, PAUSES);
    After {
        settled: step.settled,
        action: step.change.map(|(action, _)| action),
        states: state.attempts.iter().map(|row| row.state).collect(),
        status: state.status,
        refunded: i64::try_from(order.refunded_here.trunc().mantissa()).expect("small"),
    }
}

fn after(
    settled: Settled,
    action: Option<Action>,
    states: &[AttemptState],
    status: Status,
    refunded: i64,
) -> After {
    After {
        settled,
        action,
        states: states.to_vec(),
        status,
        refunded,
    }
}

const PENDING: Status = Status::RefundPending;

#[test]
fn a_success_is_settled_whichever_process_reports_it() {
    for (state, owner) in [
        (S::Claimed, Some(ME)),
        (S::Claimed, Some(OTHER)),
        (S::Sent, None),
        (S::Pending, Some(OTHER)),
        (S::Unknown, None),
        (S::Parked, None),
    ] {
        assert_eq!(
            settle(PENDING, vec![row(1, state, owner)], &report(1, success())),
            after(
                Settled::Refunded,
                Some(Action::Confirm),
                &[S::Succeeded],
                Status::Refunded,
                50
            ),
            "{state:?}"
        );
    }
}

#[test]
fn a_decline_counts_only_from_the_present_owner() {
    assert_eq!(
        settle(
            PENDING,
            vec![row(1, S::Claimed, Some(ME))],
            &report(1, declined())
        ),
        after(
            Settled::Declined,
            Some(Action::Decline),
            &[S::Declined],
            Status::RefundFailed,
            0
        )
    );
    for owner in [None, Some(OTHER)] {
        assert_eq!(
            settle(
                PENDING,
                vec![row(1, S::Claimed, owner)],
                &report(1, declined())
            ),
            after(Settled::NotOwner, None, &[S::Claimed], PENDING, 0)
        );
    }
}

#[test]
fn a_late_answer_that_agrees_is_counted_and_one_that_disagrees_is_recorded() {
    let mut paid = row(1, S::Succeeded, None);
    paid.gateway_ref = Some("ref".to_owned());
    assert_eq!(
        settle(Status::Refunded, vec![paid.clone()], &report(1, success())),
        after(Settled::Agreed, None, &[S::Succeeded], Status::Refunded, 0)
    );
    assert_eq!(
        settle(Status::Refunded, vec![paid], &report(1, declined())),
        after(
            Settled::Disagreed,
            Some(Action::Disagreement),
            &[S::Succeeded],
            Status::Refunded,
            0
        )
    );
    let mut elsewhere = row(1, S::Succeeded, None);
    elsewhere.gateway_ref = Some("another payment".to_owned());
    assert_eq!(
        settle(Status::Refunded, vec![elsewhere], &report(1, success())),
        after(
            Settled::Disagreed,
            Some(Action::Disagreement),
            &[S::Succeeded],
            Status::Refunded,
            0
        )
    );
    assert_eq!(
        settle(
            Status::RefundFailed,
            vec![row(1, S::Declined, None)],
            &report(1, declined())
        ),
        after(
            Settled::Agreed,
            None,
            &[S::Declined],
            Status::RefundFailed,
            0
        )
    );
}

#[test]
fn a_declined_attempt_that_paid_after_all_refunds_the_return() {
    assert_eq!(
        settle(
            Status::RefundFailed,
            vec![row(1, S::Declined, None)],
            &report(1, success())
        ),
        after(
            Settled::Refunded,
            Some(Action::LateSuccess),
            &[S::Succeeded],
            Status::Refunded,
            50
        )
    );
}

#[test]
fn an_earlier_success_voids_a_later_attempt_that_cannot_have_been_sent() {
    let mut unsent = row(2, S::Claimed, Some(OTHER));
    unsent.first_sent_at = None;
    let expected = after(
        Settled::Refunded,
        Some(Action::LateSuccess),
        &[S::Succeeded, S::Void],
        Status::Refunded,
        50,
    );
    let attempts = vec![row(1, S::Declined, None), unsent];
    assert_eq!(settle(PENDING, attempts, &report(1, success())), expected);

    // At a gateway with keys `first_sent_at` is set by the take-over; only the owner knows that it did not send.
    let attempts = vec![row(1, S::Declined, None), row(2, S::Claimed, Some(ME))];
    let on_behalf = OutcomeReport {
        unsent: Some(2),
        ..report(1, success())
    };
    assert_eq!(settle(PENDING, attempts, &on_behalf), expected);
}

#[test]
fn p5_an_earlier_success_beside_a_later_attempt_that_may_have_been_sent_waits_for_a_person() {
    for (state, owner, unsent) in [
        (S::Claimed, Some(OTHER), None),
        (S::Claimed, Some(OTHER), Some(2)),
        (S::Sent, Some(ME), Some(2)),
        (S::Unknown, None, None),
        (S::Pending, None, None),
        (S::Parked, None, None),
    ] {
        let attempts = vec![row(1, S::Declined, None), row(2, state, owner)];
        let earlier = OutcomeReport {
            unsent,
            ..report(1, success())
        };
        assert_eq!(
            settle(PENDING, attempts, &earlier),
            after(
                Settled::Parked,
                Some(Action::Park),
                &[S::Succeeded, S::Parked],
                PENDING,
                0
            ),
            "{state:?} {owner:?} {unsent:?}"
        );
    }
}

#[test]
fn a_second_payment_of_a_refunded_return_is_recorded() {
    let attempts = vec![row(1, S::Succeeded, None), row(2, S::Void, None)];
    assert_eq!(
        settle(Status::Refunded, attempts, &report(2, success())),
        after(
            Settled::Disagreed,
            Some(Action::Disagreement),
            &[S::Succeeded, S::Succeeded],
            Status::Refunded,
            0
        )
    );
}

#[test]
fn p5_two_attempts_that_paid_are_never_one_refund() {
    for (state, owner) in [
        (S::Parked, None),
        (S::Claimed, Some(ME)),
        (S::Unknown, None),
    ] {
        let mut state = RefundState {
            status: PENDING,
            attempts: vec![row(1, S::Succeeded, None), row(2, state, owner)],
        };
        let first = state.settle(&report(2, success()), &mut order(), NOW, PAUSES);
        assert_eq!(first.settled, Settled::Disagreed, "{state:?}");
        assert_eq!(
            first.change.map(|(action, _)| action),
            Some(Action::Disagreement)
        );
        let second = &state.attempts[1];
        assert_eq!(
            (second.state, second.gateway_ref.as_deref()),
            (S::Parked, Some("ref"))
        );
        let again = state.settle(&report(2, success()), &mut order(), NOW, PAUSES);
        assert_eq!(again, only(Settled::Agreed), "recorded once");
        assert_eq!(state.status, PENDING);
    }
}

/// People may mark a return as paid because the customer was paid in another way.
#[test]
fn a_payment_of_a_return_that_was_marked_paid_without_a_reference_is_recorded_once() {
    let mut state = RefundState {
        status: Status::Refunded,
        attempts: vec![row(1, S::Succeeded, None)],
    };
    let settled = |state: &mut RefundState| {
        state
            .settle(&report(1, success()), &mut order(), NOW, PAUSES)
            .settled
    };
    assert_eq!(settled(&mut state), Settled::Disagreed);
    assert_eq!(settled(&mut state), Settled::Agreed);
}

#[test]
fn more_than_the_order_total_is_never_counted() {
    let mut row = row(1, S::Claimed, Some(ME));
    row.amount = euro(51);
    assert_eq!(
        settle(PENDING, vec![row], &report(1, success())),
        after(
            Settled::Parked,
            Some(Action::Park),
            &[S::Parked],
            PENDING,
            0
        )
    );
}

/// Another return of the order was refunded meanwhile.
#[test]
fn p5_an_earlier_payment_that_the_order_cannot_bear_stops_later_attempts() {
    for status in [PENDING, Status::RefundFailed] {
        let mut state = RefundState {
            status,
            attempts: vec![row(1, S::Declined, None), row(2, S::Claimed, Some(ME))],
        };
        let mut order = order();
        order.refunded_here = order.total.amount;
        let first = state.settle(&report(1, success()), &mut order, NOW, PAUSES);
        let record = if status == PENDING {
            Action::Park
        } else {
            Action::Disagreement
        };
        assert_eq!(first.change.map(|(action, _)| action), Some(record));
        let states: Vec<S> = state.attempts.iter().map(|row| row.state).collect();
        assert_eq!(states, [S::Parked, S::Parked]);
        assert_eq!(state.attempts[0].gateway_ref.as_deref(), Some("ref"));
        let again = state.settle(&report(1, success()), &mut order, NOW, PAUSES);
        assert_eq!(again, only(Settled::Agreed), "recorded once");
    }
}

/// The shop hears of the payment before we do, and counts it in its own column.
#[test]
fn p5_a_payment_is_settled_whatever_the_shop_has_refunded_itself() {
    let mut state = RefundState {
        status: PENDING,
        attempts: vec![row(1, S::Pending, Some(ME))],
    };
    let mut order = order();
    order.refunded_by_shop = order.total.amount;
    let step = state.settle(&report(1, success()), &mut order, NOW, PAUSES);
    assert_eq!(step.settled, Settled::RefundedBesideShop);
    assert_eq!(state.status, Status::Refunded);
}

/// A provider may repeat a notification as often as it likes. The look-ups that follow bring a person no nearer, and the
/// planned ones no later.
#[test]
fn p5_a_look_up_that_a_notification_brought_forward_counts_for_nothing() {
    let planned = NOW + LOOK_UP;
    let answer = UnusableAnswer {
        words: "409 in_progress".to_owned(),
        counts: true,
        reason: ParkReason::NotUnderstood,
    };
    let open = |looked_up, answer| Outcome::StillOpen {
        error: "not_found",
        looked_up,
        answer,
    };
    let still_pending = Outcome::Pending {
        gateway_ref: "ref".to_owned(),
    };
    let not_found = Outcome::Park {
        reason: ParkReason::NotFound,
    };
    for (state, outcome, next) in [
        (S::Unknown, open(true, None), planned),
        (S::Unknown, open(true, Some(answer)), planned),
        (
            S::Unknown,
            open(false, None),
            NOW + UNSENT * (UNCOUNTED + 1),
        ),
        (S::Pending, still_pending, planned),
        (S::Unknown, not_found, planned),
    ] {
        let mut attempt = row(1, state, Some(ME));
        attempt.planned_check_at = Some(planned);
        (attempt.checks, attempt.refusals) = (2, 4);
        let mut state = RefundState {
            status: PENDING,
            attempts: vec![attempt],
        };
        let step = state.settle(&report(1, outcome), &mut order(), NOW, PAUSES);
        assert_eq!(step.settled, Settled::Postponed);
        let attempt = &state.attempts[0];
        assert_eq!((attempt.checks, attempt.next_check_at), (2, next));
        assert!(attempt.refusals <= 4);
        let still = (next < planned).then_some(planned);
        assert_eq!(attempt.planned_check_at, still, "{:?}", attempt.state);
    }
    let mut late = row(1, S::Unknown, Some(ME));
    late.planned_check_at = Some(NOW);
    let mut state = RefundState {
        status: PENDING,
        attempts: vec![late],
    };
    state.settle(&report(1, open(true, None)), &mut order(), NOW, PAUSES);
    assert_eq!(state.attempts[0].checks, 1, "its time had come");
}

#[test]
fn becoming_unknown_is_recorded_once() {
    let unknown = report(
        1,
        Outcome::Unknown {
            error: "timeout",
            answer: None,
        },
    );
    let mut claimed = row(1, S::Claimed, Some(ME));
    claimed.checks = 7;
    let mut state = RefundState {
        status: PENDING,
        attempts: vec![claimed],
    };
    let first = state.settle(&unknown, &mut order(), NOW, PAUSES);
    assert_eq!(
        first
            .change
            .map(|(action, detail)| (action, detail["error"].clone())),
        Some((Action::OutcomeUnknown, json!("timeout")))
    );
    let row = &mut state.attempts[0];
    assert_eq!(
        (row.state, row.owner, row.checks),
        (S::Unknown, None, 1),
        "calls that were not made are not counted as look-ups"
    );
    assert_eq!(row.next_check_at, NOW + LOOK_UP);
    row.owner = Some(ME);
    row.call_deadline = Some(unknown.owned_until);
    let again = state.settle(&unknown, &mut order(), NOW, PAUSES);
    assert_eq!((again.settled, again.change), (Settled::Postponed, None));
    assert_eq!(state.attempts[0].checks, 2);
}

/// Five look-ups that bring nothing new park the attempt; five that were not made must not.
#[test]
fn p5_only_look_ups_that_were_made_are_counted() {
    let still_open = |looked_up| Outcome::StillOpen {
        error: "gateway_paused",
        looked_up,
        answer: None,
    };
    let not_sent = Outcome::NotSent {
        error: "gateway_paused",
        never_sent: false,
        answer: None,
    };
    for (outcome, checks, pause) in [
        (still_open(true), 4, LOOK_UP * 4),
        (still_open(false), 3, UNSENT * 5),
        (not_sent, 4, UNSENT * 4),
    ] {
        let mut unknown = row(1, S::Unknown, Some(ME));
        (unknown.checks, unknown.tries) = (3, 3);
        let mut state = RefundState {
            status: PENDING,
            attempts: vec![unknown],
        };
        state.settle(&report(1, outcome.clone()), &mut order(), NOW, PAUSES);
        let row = &state.attempts[0];
        assert_eq!((row.state, row.checks), (S::Unknown, checks), "{outcome:?}");
        assert_eq!(row.next_check_at, NOW + pause, "{outcome:?}");
    }
}

#[test]
fn a_call_that_was_not_made_leaves_the_attempt_unsent() {
    // The lifetime of a key begins with the first call that may have arrived.
    for (state, never_sent, first_sent_at) in [
        (S::Sent, true, None),
        (S::Claimed, true, None),
        (S::Claimed, false, Some(NOW)),
    ] {
        let not_sent = report(
            1,
            Outcome::NotSent {
                error: "refused",
                never_sent,
                answer: None,
            },
        );
        let mut state = RefundState {
            status: PENDING,
            attempts: vec![row(1, state, Some(ME))],
        };
        state.settle(&not_sent, &mut order(), NOW, PAUSES);
        let row = &state.attempts[0];
        assert_eq!(
            (row.state, row.first_sent_at, row.owner),
            (S::Claimed, first_sent_at, None),
            "{state:?} {never_sent}"
        );
        assert_eq!(row.last_error.as_deref(), Some("refused"));
    }
}

#[test]
fn reports_that_only_the_owner_may_make_are_ignored_from_others() {
    for outcome in [
        Outcome::Pending {
            gateway_ref: "ref".to_owned(),
        },
        Outcome::Unknown {
            error: "timeout",
            answer: None,
        },
        Outcome::NotSent {
            error: "refused",
            never_sent: true,
            answer: None,
        },
        Outcome::StillOpen {
            error: "not_found",
            looked_up: true,
            answer: None,
        },
        Outcome::Park {
            reason: ParkReason::NotFound,
        },
    ] {
        let before = row(1, S::Unknown, Some(OTHER));
        let mut state = RefundState {
            status: PENDING,
            attempts: vec![before.clone()],
        };
        let step = state.settle(&report(1, outcome), &mut order(), NOW, PAUSES);
        assert_eq!(step, only(Settled::NotOwner));
        assert_eq!(state.attempts, [before]);
    }
}

/// The attempt fell due during a long claim, and the same process took it over and has sent it.
#[test]
fn p5_a_former_taking_by_the_same_process_is_not_the_owner() {
    let mut taken_again = row(1, S::Sent, Some(ME));
    taken_again.call_deadline = Some(NOW + Duration::from_secs(60));
    let not_sent = Outcome::NotSent {
        error: "no_turn",
        never_sent: true,
        answer: None,
    };
    for outcome in [
        not_sent,
        Outcome::Unknown {
            error: "timeout",
            answer: None,
        },
        declined(),
    ] {
        let mut state = RefundState {
            status: PENDING,
            attempts: vec![taken_again.clone()],
        };
        let step = state.settle(&report(1, outcome), &mut order(), NOW, PAUSES);
        assert_eq!(step, only(Settled::NotOwner));
        assert_eq!(state.attempts, [taken_again.clone()]);
    }
}

#[test]
fn rows_that_contradict_each_other_are_left_for_a_person() {
    for status in [
        Status::Initiated,
        Status::Approved,
        Status::Rejected,
        Status::Cancelled,
    ] {
        assert_eq!(
            settle(
                status,
                vec![row(1, S::Claimed, Some(ME))],
                &report(1, success())
            ),
            after(Settled::Stuck, None, &[S::Claimed], status, 0)
        );
    }
    assert_eq!(
        settle(
            Status::Refunded,
            vec![row(1, S::Claimed, Some(ME))],
            &report(1, declined())
        ),
        after(Settled::Stuck, None, &[S::Claimed], Status::Refunded, 0)
    );
    assert_eq!(
        settle(PENDING, Vec::new(), &report(1, success())),
        after(Settled::Stuck, None, &[], PENDING, 0)
    );
}

fn refused(counts: bool) -> Outcome {
    Outcome::NotSent {
        error: "bad_request",
        never_sent: true,
        answer: Some(UnusableAnswer {
            words: "400 invalid_amount".to_owned(),
            counts,
            reason: ParkReason::Refused,
        }),
    }
}

/// A gateway without keys marks each send, which sets the count of look-ups to zero: the pauses grow all the same.
#[test]
fn p6_an_attempt_that_is_refused_each_time_is_tried_ever_more_seldom_and_parked() {
    let mut state = RefundState {
        status: PENDING,
        attempts: vec![row(1, S::Claimed, Some(ME))],
    };
    let mut pauses = Vec::new();
    for _ in 0..5 {
        let mut order = order();
        let step = state.settle(&report(1, refused(true)), &mut order, NOW, PAUSES);
        let attempt = &mut state.attempts[0];
        if step.settled == Settled::Parked {
            break;
        }
        pauses.push(attempt.next_check_at - NOW);
        attempt.owner = Some(ME);
        attempt.call_deadline = Some(NOW + Duration::from_secs(30));
        attempt.state = S::Sent;
        attempt.checks = 0;
    }
    assert_eq!(pauses, [1, 2, 3, 4].map(time::Duration::seconds));
    let parked = &state.attempts[0];
    assert_eq!(parked.state, S::Parked);
    assert_eq!(parked.last_error.as_deref(), Some("refused"));
    assert_eq!(
        parked.provider_answer.as_deref(),
        Some("400 invalid_amount")
    );
}

#[test]
fn p6_refusals_that_are_about_every_refund_park_nothing() {
    let mut attempt = row(1, S::Claimed, Some(ME));
    attempt.refusals = 4;
    let mut state = RefundState {
        status: PENDING,
        attempts: vec![attempt],
    };
    let step = state.settle(&report(1, refused(false)), &mut order(), NOW, PAUSES);
    assert_eq!(step.settled, Settled::Postponed);
    assert_eq!(state.attempts[0].refusals, 4);
    assert!(state.attempts[0].provider_answer.is_some());
}
