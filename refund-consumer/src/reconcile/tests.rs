use shared::domain::money::{Currency, Money};
use shared::domain::refund::{AttemptId, ProviderKey};
use time::macros::datetime;
use uuid::Uuid;

use super::*;
use crate::gateway::GatewayName;

const NOW: time::OffsetDateTime = datetime!(2026-11-23 12:00 UTC);
const WINDOW: Duration = Duration::from_secs(24 * 3600);

/// Sent with its key, if at all.
fn due(state: AttemptState, sent_hours_ago: Option<i64>, gateway_ref: Option<&str>) -> Attempt {
    Attempt {
        id: AttemptId {
            return_id: ReturnId(1),
            number: 1,
        },
        key: ProviderKey("k".to_owned()),
        amount: Money::new(1.into(), Currency::parse("EUR").expect("a code")),
        state,
        owner: None,
        call_deadline: None,
        first_sent_at: sent_hours_ago.map(|hours| NOW - time::Duration::hours(hours)),
        sent_with_key: true,
        next_check_at: NOW,
        planned_check_at: None,
        checks: 3,
        tries: 0,
        refusals: 0,
        provider_answer: None,
        gateway: None,
        gateway_ref: gateway_ref.map(str::to_owned),
        last_error: None,
        succeeded_at: None,
        recheck_at: None,
        created_at: NOW,
        updated_at: NOW,
    }
}

fn by(native_idempotency: bool) -> TakeOver {
    TakeOver {
        owner: Uuid::nil(),
        gateway: GatewayName::simulated(),
        native_idempotency,
        now: NOW,
        call_deadline: NOW + Duration::from_secs(30),
    }
}

#[test]
fn p5_only_a_key_within_its_lifetime_may_go_out_again() {
    let maybe = |may_resend| SendState::MaybeSent {
        may_resend,
        checks: 3,
    };
    let pending = SendState::Pending {
        gateway_ref: "r".to_owned(),
    };
    let paid = SendState::Paid {
        gateway_ref: "r".to_owned(),
    };
    use AttemptState as S;
    for (row, keys, expected) in [
        (due(S::Claimed, None, None), true, SendState::Unsent),
        (due(S::Claimed, None, None), false, SendState::Unsent),
        (due(S::Claimed, Some(1), None), true, maybe(true)),
        (due(S::Unknown, Some(23), None), true, maybe(true)),
        (due(S::Unknown, Some(24), None), true, maybe(false)),
        (due(S::Unknown, None, None), true, maybe(false)),
        (due(S::Sent, Some(1), None), false, maybe(false)),
        (due(S::Unknown, Some(1), None), false, maybe(false)),
        (due(S::Pending, Some(1), Some("r")), true, pending.clone()),
        (due(S::Succeeded, Some(1), Some("r")), true, paid.clone()),
        (due(S::Succeeded, Some(1), None), true, maybe(false)),
    ] {
        assert_eq!(send_state(&row, &by(keys), WINDOW), expected, "{row:?}");
    }
    let mut without_key = due(S::Unknown, Some(1), None);
    without_key.sent_with_key = false;
    assert_eq!(
        send_state(&without_key, &by(true), WINDOW),
        maybe(false),
        "a gateway that never saw the key would take it for a new call"
    );
    let mut edge = due(S::Unknown, Some(24), None);
    edge.first_sent_at = Some(NOW - WINDOW + Duration::from_secs(30));
    assert_eq!(
        send_state(&edge, &by(true), WINDOW),
        maybe(false),
        "the call could end after the window"
    );
}
