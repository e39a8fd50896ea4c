//! An admin files for a customer: the return is the customer's, and the admin does not decide about it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Api, CUSTOMER, post_return};
use crate::tokens::Format;

async fn file_as(api: &Api, token: &str, body: &Value, key: Option<&str>) -> Answer {
    post_return(&api.http, api.address, token, body, key).await
}

async fn decide(api: &Api, token: &str, id: i64, verb: &str) -> Answer {
    let url = api.url(&format!("/returns/{id}/{verb}"));
    let request = api.http.request(Method::POST, url).bearer_auth(token);
    let sent = request.header("if-match", "*").send().await;
    Answer::read(sent.expect("a response")).await
}

#[tokio::test]
async fn an_admin_files_for_a_customer_and_the_event_says_who() {
    let api = Api::start().await;
    api.db.seed_orders(1, 2, CUSTOMER).await;
    for (order, format) in (1..).zip(Format::ALL) {
        let admin = api.token_of(format, 7, "admin");
        let body = json!({"order_id": order, "customer_id": 42});
        let id = file_as(&api, &admin, &body, None).await.return_id();
        let shown = api
            .get(&format!("/returns/{id}"), &api.customer_token())
            .await;
        assert_eq!(
            (shown.status, &shown.json()["customer_id"]),
            (200, &json!(42))
        );
        let events = api
            .get(&format!("/returns/{id}/events"), &admin)
            .await
            .json();
        let event = &events["items"][0];
        assert_eq!(event["actor"], json!({"type": "admin", "id": "7"}));
        let data: Value =
            serde_json::from_str(event["event_data"].as_str().expect("text")).expect("JSON");
        assert_eq!(data["filed_by"], 7);
    }
    // A filing of a customer's own has no such field.
    api.db.seed_orders(9, 1, CUSTOMER).await;
    let own = api.file(9).await.return_id();
    let events = api
        .get(&format!("/returns/{own}/events"), &api.admin_token())
        .await
        .json();
    let data = events["items"][0]["event_data"].as_str().expect("text");
    assert!(!data.contains("filed_by"), "{data}");
    api.stop().await;
}

#[tokio::test]
async fn only_an_admin_names_a_customer_and_must() {
    let api = Api::start().await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    let for_42 = json!({"order_id": 1, "customer_id": 42});
    let own = json!({"order_id": 1});
    for format in Format::ALL {
        let token = |user, role| api.token_of(format, user, role);
        for (token, body) in [
            (token(CUSTOMER.0, "customer"), &for_42),
            (token(43, "customer"), &for_42),
            (token(8, "auditor"), &for_42),
            (token(8, "auditor"), &own),
            (token(7, "admin"), &own),
            // Not for themselves as for a customer.
            (token(CUSTOMER.0, "admin"), &for_42),
        ] {
            file_as(&api, &token, body, None)
                .await
                .problem(403, "forbidden");
        }
        // The order must be of the customer that is named.
        let other = json!({"order_id": 1, "customer_id": 43});
        let refused = file_as(&api, &token(7, "admin"), &other, None).await;
        refused.problem(400, "unknown-order");
        let nobody = json!({"order_id": 1, "customer_id": 0});
        let refused = file_as(&api, &token(7, "admin"), &nobody, None).await;
        let problem = refused.problem(422, "invalid-fields");
        assert_eq!(problem["errors"][0]["pointer"], "#/customer_id");
    }
    api.stop().await;
}

#[tokio::test]
async fn the_key_belongs_to_the_admin_and_covers_the_customer() {
    let api = Api::start().await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    let body = json!({"order_id": 1, "customer_id": 42});
    let (ada, bob) = (api.admin_token(), api.token_of(Format::Jwt, 9, "admin"));
    let first = file_as(&api, &ada, &body, Some("k")).await;
    let id = first.return_id();
    let again = file_as(&api, &ada, &body, Some("k")).await;
    assert_eq!(
        (again.return_id(), again.header("idempotent-replayed")),
        (id, Some("true"))
    );
    let other = json!({"order_id": 1, "customer_id": 43});
    let reused = file_as(&api, &ada, &other, Some("k")).await;
    reused.problem(422, "idempotency-key-reused");
    // The same key of another admin, and of the customer, is another key.
    file_as(&api, &bob, &body, Some("k"))
        .await
        .problem(409, "already-open");
    api.file_with(1, Some("k"))
        .await
        .problem(409, "already-open");
    api.stop().await;
}

#[tokio::test]
async fn nobody_decides_about_a_return_that_they_filed_for_a_customer() {
    let api = Api::start_with(&["--review-above-amount", "EUR:1"]).await;
    api.db.seed_orders(1, 3, CUSTOMER).await;
    for (order, format) in (1..).zip(Format::ALL) {
        let (ada, bob) = (
            api.token_of(format, 7, "admin"),
            api.token_of(format, 9, "admin"),
        );
        let body = json!({"order_id": order, "customer_id": 42});
        let id = file_as(&api, &ada, &body, None).await.return_id();
        for verb in ["approve", "reject", "retry-refund"] {
            decide(&api, &ada, id, verb).await.problem(403, "forbidden");
        }
        assert_eq!(decide(&api, &bob, id, "approve").await.status, 200);
        // Taking it back is no decision in one's own favor.
        assert_eq!(decide(&api, &ada, id, "cancel").await.status, 200);
    }
    api.stop().await;
}
