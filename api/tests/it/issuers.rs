//! Two issuers, each with numbers of its own: the shop's for customers, another one's for its staff.

use serde_json::{Value, json};

use crate::harness::{Answer, Api, CUSTOMER, count};
use crate::tokens::{Format, Issuer};

const STAFF: &str = "https://staff.example";

/// Adds the keys of an issuer of its own.
async fn with_staff(api: &Api) -> Issuer {
    let staff = Issuer::new(2);
    let foreign = staff.public_keys().map(|mut key| {
        key["issuer"] = json!(STAFF);
        key
    });
    let keys: Vec<Value> = api
        .keys
        .issuer()
        .public_keys()
        .into_iter()
        .chain(foreign)
        .collect();
    api.keys.write_text(&json!({ "keys": keys }).to_string());
    for key_use in ["sig", "biscuit"] {
        api.until_metric(&format!(r#"auth_keys{{use="{key_use}"}} 2"#))
            .await;
    }
    staff
}

#[tokio::test]
async fn users_of_two_issuers_with_one_number_are_two_persons() {
    let api = Api::start_with(&["--rate-per-caller", "1"]).await;
    let staff = with_staff(&api).await;
    api.db.seed_orders(1, 2, CUSTOMER).await;
    let ids = [api.file(1).await.return_id(), api.file(2).await.return_id()];
    for (id, format) in ids.into_iter().zip(Format::ALL) {
        let claims = |role: &str| json!({"user_id": CUSTOMER.0, "role": role, "iss": STAFF});
        let admin = staff.mint_as(format, claims("admin"));
        // The customer uses up the whole rate, which is not the admin's.
        while api.get("/events", &api.customer_token()).await.status != 429 {}
        let request = api.http.post(api.url(&format!("/returns/{id}/approve")));
        let request = request.bearer_auth(&admin).header("if-match", "\"1\"");
        let approved = Answer::read(request.send().await.expect("a response")).await;
        assert_eq!(approved.status, 200, "{format:?}: {:?}", approved.json());
        // Only the shop's issuer numbers customers.
        let customer = staff.mint_as(format, claims("customer"));
        api.get("/orders", &customer)
            .await
            .problem(401, "unauthenticated");
    }
    let by_staff = "SELECT COUNT(*) FROM return_events WHERE event_type = 'return.approved' \
                    AND actor_type = 'admin' AND actor_id = '42@https://staff.example'";
    assert_eq!(count(&api.db, by_staff).await, 2);
    api.stop().await;
}
