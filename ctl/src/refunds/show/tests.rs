use shared::domain::eligibility::OrderFacts;
use shared::domain::ids::{CustomerId, EventId, OrderId};
use shared::domain::money::{Currency, Money};
use shared::domain::refund::AttemptId;
use shared::domain::status::Status;
use time::macros::datetime;
use uuid::Uuid;

use super::*;

/// A return whose last request is still open, with the widest values that its columns hold.
fn wide() -> Rows {
    let at = datetime!(2026-11-23 12:00:00.123456 UTC);
    let (id, order_id) = (ReturnId(i64::MAX), OrderId(i64::MAX));
    let customer_id = CustomerId(i64::MAX);
    let amount = Money::new(
        "999999999999.99".parse().expect("a decimal"),
        Currency::parse("EUR").expect("a code"),
    );
    let attempt = |number| Attempt {
        id: AttemptId {
            return_id: id,
            number,
        },
        key: ProviderKey::of(EventId(Uuid::now_v7()), i32::MAX),
        amount: amount.clone(),
        state: AttemptState::Parked,
        owner: Some(Uuid::now_v7()),
        call_deadline: None,
        first_sent_at: Some(at),
        sent_with_key: true,
        next_check_at: at,
        planned_check_at: None,
        checks: i32::MAX,
        tries: 0,
        refusals: 0,
        provider_answer: None,
        gateway: Some("g".repeat(64)),
        gateway_ref: Some("r".repeat(128)),
        last_error: Some("not_found".to_owned()),
        succeeded_at: None,
        recheck_at: None,
        created_at: at,
        updated_at: at,
    };
    let event = Event {
        seq: i32::MAX,
        event_id: EventId(Uuid::now_v7()),
        event_type: "return.review_required".to_owned(),
        actor_type: "system".to_owned(),
        actor_id: "a".repeat(64),
        created_at: at,
    };
    Rows {
        row: ReturnRow {
            order_id,
            customer_id,
            filed_by: Some(i64::MAX),
            status: Status::RefundPending,
            version: i32::MAX,
            review_required: true,
            reason: String::new(),
            reason_code: None,
            refund_amount: amount.clone(),
            created_at: at,
            updated_at: at,
            now: at,
        },
        refund: Refund {
            return_id: id,
            customer_id,
            filed_by: Some(i64::MAX),
            version: i32::MAX,
            amount: amount.clone(),
            order: OrderFacts {
                id: order_id,
                total: amount.clone(),
                refunded_by_shop: 0.into(),
                refunded_here: 0.into(),
                status: "delivered".to_owned(),
                delivered_at: None,
            },
            state: RefundState {
                status: Status::RefundPending,
                attempts: vec![attempt(1), attempt(i32::MAX)],
            },
        },
        events: vec![event],
        request: Some(RequestRow {
            id: i64::MAX,
            verb: "refund.request_mark_paid".to_owned(),
            requested_by: i64::MAX.to_string(),
            evidence: "the provider's statement, line 14; ".repeat(50),
            created_at: at,
            age_secs: 60.0,
            details: format!(
                r#"{{"version":{},"attempt":1,"gateway_ref":"{}"}}"#,
                i32::MAX,
                "r".repeat(128)
            ),
        }),
    }
}

#[test]
fn wide_values_fit_and_commands_can_be_pasted() {
    let report = Report::of(wide()).expect("readable");
    let text = output::expect_fits(&report);
    let mut pasted = text
        .split_once("possible now:\n")
        .expect("commands")
        .1
        .replace("\\\n    ", "");
    pasted = pasted.replace("\n  ", "\n");
    let lines: Vec<&str> = pasted.lines().map(str::trim).collect();
    let possible = report.commands.iter().filter_map(|one| one.line.as_deref());
    assert_eq!(lines, possible.collect::<Vec<_>>());
}
