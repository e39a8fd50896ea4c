//! Keys change without a restart: two are valid at once, a retired one is refused, a broken file changes nothing.

use serde_json::{Value, json};
use shared::test_support::TestDb;

use crate::harness::Api;
use crate::tokens::{Format, Issuer, Keys};

const READ: &str = r#"auth_key_reloads_total{result="read"}"#;
const FAILED: &str = r#"auth_key_reloads_total{result="failed"}"#;
const USABLE: &str = "auth_key_file_usable";

/// The status of `GET /returns/1` for a token of each format: 404 if it is accepted, because the return does not exist.
async fn statuses(api: &Api, issuer: &Issuer) -> [u16; 2] {
    let mut statuses = [0; 2];
    for (status, format) in statuses.iter_mut().zip(Format::ALL) {
        let token = issuer.mint_as(format, json!({"user_id": 42, "role": "customer"}));
        *status = api.get("/returns/1", &token).await.status;
    }
    statuses
}

/// Starts an api with `old` as the only issuer, and waits until its keys were read again after the start.
async fn start(old: Issuer) -> Api {
    let db = TestDb::create().await;
    let url = db.url().to_owned();
    let api = Api::start_with_keys(db, &url, &[], Keys::of(old)).await;
    api.until_metric(&format!("{READ} 1")).await;
    api
}

#[tokio::test]
async fn a_new_key_is_loaded_and_the_old_one_is_valid_until_it_is_removed() {
    let api = start(Issuer::new(1)).await;
    let (old, new) = (api.keys.issuer(), Issuer::new(2));
    let remembered =
        Format::ALL.map(|format| old.mint_as(format, json!({"user_id": 43, "role": "customer"})));
    for token in &remembered {
        assert_eq!(api.get("/returns/1", token).await.status, 404);
    }
    assert_eq!(statuses(&api, &new).await, [401, 401], "before it is there");

    api.keys.write(&[&new]);
    api.until_metric(&format!("{READ} 2")).await;
    assert_eq!(statuses(&api, &new).await, [404, 404], "both are there");
    assert_eq!(statuses(&api, old).await, [404, 404], "both are there");

    api.keys.write_only(&[&new]);
    api.until_metric(&format!("{READ} 3")).await;
    assert_eq!(
        statuses(&api, &new).await,
        [404, 404],
        "the old key is removed"
    );
    assert_eq!(
        statuses(&api, old).await,
        [401, 401],
        "the old key is removed"
    );
    for token in &remembered {
        assert_eq!(api.get("/returns/1", token).await.status, 401, "remembered");
    }
    api.stop().await;
}

#[tokio::test]
async fn another_key_with_the_same_id_is_a_new_key() {
    let api = start(Issuer::new(1)).await;
    let other = Issuer::new(1);
    assert_eq!(statuses(&api, &other).await, [401, 401]);
    api.keys.write_only(&[&other]);
    api.until_metric(&format!("{READ} 2")).await;
    assert_eq!(statuses(&api, &other).await, [404, 404]);
    assert_eq!(statuses(&api, api.keys.issuer()).await, [401, 401]);
    api.stop().await;
}

#[tokio::test]
async fn a_broken_key_file_leaves_the_previous_keys_in_force() {
    let api = start(Issuer::new(1)).await;
    let mut with_private = api.keys.issuer().public_keys().to_vec();
    with_private[0]["d"] = json!("c2VjcmV0");
    let stranger = Issuer::new(2).public_keys();
    let mut numberless = stranger[1].clone();
    numberless["kid"] = json!("name");
    assert_eq!(api.metric(USABLE).await, 1.0, "as at the start");
    let broken = [
        String::new(),
        "{\"keys\": [".to_owned(),
        json!({"keys": with_private}).to_string(),
        // A file with one bad key is refused as a whole.
        json!({"keys": [stranger[0], numberless]}).to_string(),
        json!({"keys": [stranger[0], stranger[0]]}).to_string(),
        " ".repeat(70_000),
    ];
    for (count, text) in (1..).zip(broken) {
        api.keys.write_text(&text);
        api.until_metric(&format!("{FAILED} {count}")).await;
        assert_eq!(api.metric(USABLE).await, 0.0, "{count}");
        assert_eq!(
            statuses(&api, api.keys.issuer()).await,
            [404, 404],
            "{count}"
        );
        assert_eq!(statuses(&api, &Issuer::new(2)).await, [401, 401], "{count}");
    }
    std::fs::remove_file(api.keys.path()).expect("remove");
    api.until_metric(&format!("{FAILED} 7")).await;
    assert_eq!(api.metric(USABLE).await, 0.0, "no file");
    assert_eq!(
        statuses(&api, api.keys.issuer()).await,
        [404, 404],
        "no file"
    );
    api.until_metric(&format!("{READ} 1")).await;

    let new = Issuer::new(3);
    api.keys.write_only(&[&new]);
    api.until_metric(&format!("{READ} 2")).await;
    assert_eq!(api.metric(USABLE).await, 1.0, "a good file again");
    assert_eq!(statuses(&api, &new).await, [404, 404], "a good file again");
    assert_eq!(
        statuses(&api, api.keys.issuer()).await,
        [401, 401],
        "a good file again"
    );
    api.stop().await;
}

/// If the only key was stolen and removed, the last set with a key in it must not stay in force.
#[tokio::test]
async fn without_any_key_every_token_is_refused() {
    let api = start(Issuer::new(1)).await;
    assert_eq!(statuses(&api, api.keys.issuer()).await, [404, 404]);
    api.keys.write_text(&json!({"keys": []}).to_string());
    api.until_metric(&format!("{READ} 2")).await;
    assert_eq!(statuses(&api, api.keys.issuer()).await, [401, 401]);
    let new = Issuer::new(2);
    api.keys.write_only(&[&new]);
    api.until_metric(&format!("{READ} 3")).await;
    assert_eq!(statuses(&api, &new).await, [404, 404]);
    api.stop().await;
}

#[tokio::test]
async fn a_key_is_valid_only_for_its_roles() {
    let api = start(Issuer::new(1)).await;
    let shop = Issuer::new(2);
    let narrowed: Vec<Value> = shop
        .public_keys()
        .into_iter()
        .map(|mut key| {
            key["roles"] = json!(["customer", "auditor"]);
            key
        })
        .collect();
    api.keys.write_text(&json!({"keys": narrowed}).to_string());
    api.until_metric(&format!("{READ} 2")).await;
    for format in Format::ALL {
        for (role, expected) in [("customer", 404), ("auditor", 403), ("admin", 401)] {
            let token = shop.mint_as(format, json!({"user_id": 42, "role": role}));
            let status = api.get("/returns/1", &token).await.status;
            assert_eq!(status, expected, "{format:?} {role}");
        }
    }
    api.stop().await;
}
