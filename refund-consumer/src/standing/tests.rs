use serde_json::json;
use shared::domain::ids::{CustomerId, OrderId, ReturnId};
use shared::domain::money::{Currency, Money};
use time::macros::datetime;
use uuid::Uuid;

use super::*;
use crate::attempt::AttemptId;
use AttemptState as S;

const NOW: OffsetDateTime = datetime!(2026-11-23 12:00 UTC);
const ME: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);
const BACKOFF: Backoff = Backoff {
    base: Duration::from_secs(30),
    cap: Duration::from_secs(3_600),
};

fn euro(amount: i64) -> Money {
    Money::new(amount.into(), Currency::parse("EUR").expect("a code"))
}

fn order() -> OrderFacts {
    OrderFacts {
        id: OrderId(9),
        customer_id: CustomerId(42),
        total: euro(50),
        refunded_amount: euro(0),
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

fn row(number: i32, state: AttemptState, owner: Option<Uuid>) -> Recorded {
    Recorded {
        id: id(number),
        state,
        owner,
        call_deadline: owner.map(|_| NOW + Duration::from_secs(30)),
        first_sent_at: Some(NOW),
        next_check_at: NOW,
        checks: 0,
        amount: euro(50),
        gateway: Some("fake".to_owned()),
        gateway_ref: None,
        last_error: None,
    }
}

fn finding(number: i32, verdict: Verdict) -> Finding {
    Finding {
        attempt: id(number),
        verdict,
        finder: ME,
        taken_until: NOW + Duration::from_secs(30),
        unsent: None,
    }
}

fn success() -> Verdict {
    Verdict::Succeeded {
        gateway_ref: "ref".to_owned(),
    }
}

fn declined() -> Verdict {
    Verdict::Declined {
        gateway_ref: "ref".to_owned(),
        code: "card_expired".to_owned(),
    }
}

/// The world after one finding: what it led to, the action, states of the attempts, status, money.
#[derive(Debug, PartialEq)]
struct After {
    settled: Settled,
    action: Option<Action>,
    states: Vec<AttemptState>,
    status: Status,
    refunded: i64,
}

fn judge(status: Status, attempts: Vec<Recorded>, finding: &Finding) -> After {
    let mut standing = Standing { status, attempts };
    let mut order = order();
    let judgement = standing.judge(finding, &mut order, NOW, BACKOFF);
    After {
        settled: judgement.settled,
        action: judgement.change.map(|(action, _)| action),
        states: standing.attempts.iter().map(|row| row.state).collect(),
        status: standing.status,
        refunded: i64::try_from(order.refunded_amount.amount.trunc().mantissa()).expect("small"),
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
fn a_success_is_settled_by_whoever_learns_it() {
    for (state, owner) in [
        (S::Claimed, Some(ME)),
        (S::Claimed, Some(OTHER)),
        (S::Sent, None),
        (S::Pending, Some(OTHER)),
        (S::Unknown, None),
        (S::Parked, None),
    ] {
        assert_eq!(
            judge(PENDING, vec![row(1, state, owner)], &finding(1, success())),
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
        judge(
            PENDING,
            vec![row(1, S::Claimed, Some(ME))],
            &finding(1, declined())
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
            judge(
                PENDING,
                vec![row(1, S::Claimed, owner)],
                &finding(1, declined())
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
        judge(Status::Refunded, vec![paid.clone()], &finding(1, success())),
        after(Settled::Agreed, None, &[S::Succeeded], Status::Refunded, 0)
    );
    assert_eq!(
        judge(Status::Refunded, vec![paid], &finding(1, declined())),
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
        judge(Status::Refunded, vec![elsewhere], &finding(1, success())),
        after(
            Settled::Disagreed,
            Some(Action::Disagreement),
            &[S::Succeeded],
            Status::Refunded,
            0
        )
    );
    assert_eq!(
        judge(
            Status::RefundFailed,
            vec![row(1, S::Declined, None)],
            &finding(1, declined())
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
        judge(
            Status::RefundFailed,
            vec![row(1, S::Declined, None)],
            &finding(1, success())
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
    assert_eq!(judge(PENDING, attempts, &finding(1, success())), expected);

    // At a gateway with keys `first_sent_at` is set by the take-over; only the owner knows that it did not send.
    let attempts = vec![row(1, S::Declined, None), row(2, S::Claimed, Some(ME))];
    let on_behalf = Finding {
        unsent: Some(2),
        ..finding(1, success())
    };
    assert_eq!(judge(PENDING, attempts, &on_behalf), expected);
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
        let earlier = Finding {
            unsent,
            ..finding(1, success())
        };
        assert_eq!(
            judge(PENDING, attempts, &earlier),
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
        judge(Status::Refunded, attempts, &finding(2, success())),
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
        let mut standing = Standing {
            status: PENDING,
            attempts: vec![row(1, S::Succeeded, None), row(2, state, owner)],
        };
        let first = standing.judge(&finding(2, success()), &mut order(), NOW, BACKOFF);
        assert_eq!(first.settled, Settled::Disagreed, "{state:?}");
        assert_eq!(
            first.change.map(|(action, _)| action),
            Some(Action::Disagreement)
        );
        let second = &standing.attempts[1];
        assert_eq!(
            (second.state, second.gateway_ref.as_deref()),
            (S::Parked, Some("ref"))
        );
        let again = standing.judge(&finding(2, success()), &mut order(), NOW, BACKOFF);
        assert_eq!(again, only(Settled::Agreed), "recorded once");
        assert_eq!(standing.status, PENDING);
    }
}

/// People may mark a return as paid because the customer was paid in another way.
#[test]
fn a_payment_of_a_return_that_was_marked_paid_without_a_reference_is_recorded_once() {
    let mut standing = Standing {
        status: Status::Refunded,
        attempts: vec![row(1, S::Succeeded, None)],
    };
    let told = |standing: &mut Standing| {
        standing
            .judge(&finding(1, success()), &mut order(), NOW, BACKOFF)
            .settled
    };
    assert_eq!(told(&mut standing), Settled::Disagreed);
    assert_eq!(told(&mut standing), Settled::Agreed);
}

#[test]
fn more_than_the_order_total_is_never_counted() {
    let mut row = row(1, S::Claimed, Some(ME));
    row.amount = euro(51);
    assert_eq!(
        judge(PENDING, vec![row], &finding(1, success())),
        after(
            Settled::Parked,
            Some(Action::Park),
            &[S::Parked],
            PENDING,
            0
        )
    );
}

/// The order may have been refunded by the shop meanwhile, by that very payment.
#[test]
fn p5_an_earlier_payment_that_the_order_cannot_bear_stops_later_attempts() {
    for status in [PENDING, Status::RefundFailed] {
        let mut standing = Standing {
            status,
            attempts: vec![row(1, S::Declined, None), row(2, S::Claimed, Some(ME))],
        };
        let mut order = order();
        order.refunded_amount = order.total.clone();
        let first = standing.judge(&finding(1, success()), &mut order, NOW, BACKOFF);
        let record = if status == PENDING {
            Action::Park
        } else {
            Action::Disagreement
        };
        assert_eq!(first.change.map(|(action, _)| action), Some(record));
        let states: Vec<S> = standing.attempts.iter().map(|row| row.state).collect();
        assert_eq!(states, [S::Parked, S::Parked]);
        assert_eq!(standing.attempts[0].gateway_ref.as_deref(), Some("ref"));
        let again = standing.judge(&finding(1, success()), &mut order, NOW, BACKOFF);
        assert_eq!(again, only(Settled::Agreed), "recorded once");
    }
}

#[test]
fn becoming_unknown_is_recorded_once() {
    let unknown = finding(1, Verdict::Unknown { error: "timeout" });
    let mut claimed = row(1, S::Claimed, Some(ME));
    claimed.checks = 7;
    let mut standing = Standing {
        status: PENDING,
        attempts: vec![claimed],
    };
    let first = standing.judge(&unknown, &mut order(), NOW, BACKOFF);
    assert_eq!(
        first
            .change
            .map(|(action, detail)| (action, detail["error"].clone())),
        Some((Action::OutcomeUnknown, json!("timeout")))
    );
    let row = &mut standing.attempts[0];
    assert_eq!(
        (row.state, row.owner, row.checks),
        (S::Unknown, None, 1),
        "calls that were not made are not counted as look-ups"
    );
    assert!(row.next_check_at >= NOW + BACKOFF.base);
    row.owner = Some(ME);
    row.call_deadline = Some(unknown.taken_until);
    let again = standing.judge(&unknown, &mut order(), NOW, BACKOFF);
    assert_eq!((again.settled, again.change), (Settled::Postponed, None));
    assert_eq!(standing.attempts[0].checks, 2);
}

/// Five look-ups that tell nothing bring a person; five that were not made must not.
#[test]
fn p5_only_look_ups_that_were_made_are_counted() {
    let slow = Backoff {
        base: Duration::from_secs(600),
        cap: Duration::from_secs(3600),
    };
    let still_open = |looked_up| Verdict::StillOpen {
        error: "gateway_paused",
        looked_up,
    };
    let not_sent = Verdict::NotSent {
        error: "gateway_paused",
        never_sent: false,
    };
    for (verdict, checks, soon) in [
        (still_open(true), 4, false),
        (still_open(false), 3, true),
        (not_sent, 4, true),
    ] {
        let mut unknown = row(1, S::Unknown, Some(ME));
        unknown.checks = 3;
        let mut standing = Standing {
            status: PENDING,
            attempts: vec![unknown],
        };
        standing.judge(&finding(1, verdict.clone()), &mut order(), NOW, slow);
        let row = &standing.attempts[0];
        assert_eq!((row.state, row.checks), (S::Unknown, checks), "{verdict:?}");
        assert_eq!(row.next_check_at <= NOW + UNSENT.cap, soon, "{verdict:?}");
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
        let not_sent = finding(
            1,
            Verdict::NotSent {
                error: "refused",
                never_sent,
            },
        );
        let mut standing = Standing {
            status: PENDING,
            attempts: vec![row(1, state, Some(ME))],
        };
        standing.judge(&not_sent, &mut order(), NOW, BACKOFF);
        let row = &standing.attempts[0];
        assert_eq!(
            (row.state, row.first_sent_at, row.owner),
            (S::Claimed, first_sent_at, None),
            "{state:?} {never_sent}"
        );
        assert_eq!(row.last_error.as_deref(), Some("refused"));
    }
}

#[test]
fn what_only_the_owner_may_say_is_ignored_from_others() {
    for verdict in [
        Verdict::Pending {
            gateway_ref: "ref".to_owned(),
        },
        Verdict::Unknown { error: "timeout" },
        Verdict::NotSent {
            error: "refused",
            never_sent: true,
        },
        Verdict::StillOpen {
            error: "not_found",
            looked_up: true,
        },
        Verdict::Park {
            reason: "not_found",
        },
    ] {
        let before = row(1, S::Unknown, Some(OTHER));
        let mut standing = Standing {
            status: PENDING,
            attempts: vec![before.clone()],
        };
        let judgement = standing.judge(&finding(1, verdict), &mut order(), NOW, BACKOFF);
        assert_eq!(judgement, only(Settled::NotOwner));
        assert_eq!(standing.attempts, [before]);
    }
}

/// The attempt fell due during a long claim, and the same process took it over and has sent it.
#[test]
fn p5_a_former_taking_by_the_same_process_is_not_the_owner() {
    let mut taken_again = row(1, S::Sent, Some(ME));
    taken_again.call_deadline = Some(NOW + Duration::from_secs(60));
    let not_sent = Verdict::NotSent {
        error: "no_turn",
        never_sent: true,
    };
    for verdict in [not_sent, Verdict::Unknown { error: "timeout" }, declined()] {
        let mut standing = Standing {
            status: PENDING,
            attempts: vec![taken_again.clone()],
        };
        let judgement = standing.judge(&finding(1, verdict), &mut order(), NOW, BACKOFF);
        assert_eq!(judgement, only(Settled::NotOwner));
        assert_eq!(standing.attempts, [taken_again.clone()]);
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
            judge(
                status,
                vec![row(1, S::Claimed, Some(ME))],
                &finding(1, success())
            ),
            after(Settled::Stuck, None, &[S::Claimed], status, 0)
        );
    }
    assert_eq!(
        judge(
            Status::Refunded,
            vec![row(1, S::Claimed, Some(ME))],
            &finding(1, declined())
        ),
        after(Settled::Stuck, None, &[S::Claimed], Status::Refunded, 0)
    );
    assert_eq!(
        judge(PENDING, Vec::new(), &finding(1, success())),
        after(Settled::Stuck, None, &[], PENDING, 0)
    );
}

#[test]
fn look_ups_become_rarer_up_to_a_cap() {
    let wait = |checks| BACKOFF.next(NOW, checks) - NOW;
    for checks in [0, 1, 5, 20, i32::MAX] {
        assert!(wait(checks) >= BACKOFF.base, "{checks}");
        assert!(wait(checks) <= BACKOFF.cap, "{checks}");
    }
    assert!(wait(0) <= BACKOFF.base * 2);
}

/// Nobody knows anything about it, so there is nothing to wait for.
#[test]
fn what_was_not_sent_is_tried_again_soon() {
    assert_eq!(BACKOFF.at_most(UNSENT), UNSENT);
    let quick = Backoff {
        base: Duration::from_millis(50),
        cap: Duration::from_millis(100),
    };
    assert_eq!(quick.at_most(UNSENT), quick);
}
