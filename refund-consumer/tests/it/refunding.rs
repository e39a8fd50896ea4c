use serde_json::json;
use shared::domain::eligibility::POLICY_VERSION;

use crate::harness::{TRACEPARENT, World, types};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_filed_return_ends_refunded_with_every_step_on_record() {
    let world = World::new().await;
    let running = world.start(world.simulated(), &[]).await;
    let filed = world.file(500).await;
    world.announce(&filed).await;
    world.wait_for(filed.return_id, "refunded").await;

    let events = world.audited(filed.return_id).await;
    assert_eq!(
        types(&events),
        [
            "return.initiated",
            "return.approved",
            "refund.requested",
            "refund.succeeded"
        ]
    );
    assert_eq!(
        world.status(filed.return_id).await,
        ("refunded".to_owned(), 4)
    );
    assert_eq!(events[0].event_id, filed.event_id);

    let [_, approved, requested, succeeded] = events.as_slice() else {
        unreachable!("four events")
    };
    assert_eq!(
        approved.actor,
        ("policy".to_owned(), POLICY_VERSION.to_owned())
    );
    assert_eq!(approved.data["policy_version"], POLICY_VERSION);
    assert_eq!(approved.data["auto"], true);
    assert_eq!(
        requested.actor,
        ("system".to_owned(), "refund-consumer".to_owned())
    );
    assert_eq!(
        (
            &requested.data["attempt"],
            &requested.data["amount"],
            &requested.data["currency"]
        ),
        (&json!(1), &json!("49.90"), &json!("EUR"))
    );
    assert_eq!(succeeded.data["gateway"], "simulated");
    assert!(
        succeeded.data["gateway_ref"]
            .as_str()
            .is_some_and(|text| text.starts_with("sim-"))
    );
    for event in &events[1..] {
        assert_eq!(
            event.trace_id.as_deref(),
            Some(&TRACEPARENT[3..35]),
            "{}",
            event.event_type
        );
    }

    assert_eq!(world.refunded_amount(filed.order_id).await, "49.9000");
    assert_eq!(world.attempt_state(filed.return_id, 1).await, "succeeded");
    assert_eq!(world.effects(), 1);
    assert_eq!(running.messages("claimed"), 1);
    running.stop().await;
}
