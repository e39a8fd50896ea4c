//! Who is let in, and who sees what.

use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, Header};
use serde_json::json;

use crate::harness::{Api, Keys, post_return};

#[tokio::test]
async fn a_token_must_be_whole_ours_and_in_time() {
    let api = Api::start().await;
    let good = json!({"user_id": 42, "role": "customer"});
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = good.clone();
        claims[name] = value;
        api.keys.mint(claims)
    };
    let mut strange_type = Header::new(Algorithm::EdDSA);
    strange_type.typ = Some("secevent+jwt".to_owned());
    let mut critical = Header::new(Algorithm::EdDSA);
    critical.crit = Some(vec!["b64".to_owned()]);
    let refused = [
        ("foreign key", Keys::generate().mint(good.clone())),
        ("expired", with("exp", json!(1))),
        ("no exp", with("exp", json!(null))),
        ("not yet valid", with("nbf", json!(4_000_000_000_u64))),
        ("wrong audience", with("aud", json!("else"))),
        ("no audience", with("aud", json!(null))),
        ("wrong issuer", with("iss", json!("else"))),
        ("no issuer", with("iss", json!(null))),
        ("unknown role", with("role", json!("root"))),
        ("no role", with("role", json!(null))),
        ("no user", with("user_id", json!(null))),
        ("user zero", with("user_id", json!(0))),
        ("two users", with("sub", json!("43"))),
        (
            "strange type",
            api.keys.mint_with_header(&strange_type, good.clone()),
        ),
        (
            "critical header",
            api.keys.mint_with_header(&critical, good.clone()),
        ),
        ("malformed", "a.b.c".to_owned()),
        ("not a token", "hello".to_owned()),
    ];
    for (what, token) in refused {
        let answer = api.get("/returns/1", &token).await;
        answer.problem(401, "unauthenticated");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{what}");
    }
    let none = api
        .http
        .get(api.url("/returns/1"))
        .send()
        .await
        .expect("an answer");
    assert_eq!(none.status(), 401);
    for accepted in [
        good.clone(),
        json!({"sub": "42", "role": "customer"}),
        json!({"sub": "auth0|x", "user_id": 42, "role": "customer"}),
        json!({"sub": "42", "user_id": 42, "role": "customer"}),
    ] {
        let token = api.keys.mint(accepted);
        api.get("/returns/1", &token)
            .await
            .problem(404, "not-found");
    }
    api.stop().await;
}

#[tokio::test]
async fn each_role_may_do_its_own() {
    let api = Api::start().await;
    api.db.seed_orders(1, 1, crate::harness::CUSTOMER).await;
    let id = api.file(1).await.return_id();
    let path = format!("/returns/{id}");
    let token = |user: i64, role: &str| api.keys.mint(json!({"user_id": user, "role": role}));
    for (user, role, show, list, file) in [
        (42, "customer", 200, 403, 409),
        (43, "customer", 404, 403, 400),
        (7, "admin", 200, 200, 403),
        (8, "auditor", 403, 403, 403),
    ] {
        let token = token(user, role);
        assert_eq!(
            api.get(&path, &token).await.status,
            show,
            "{role} {user} shows"
        );
        assert_eq!(
            api.get("/returns", &token).await.status,
            list,
            "{role} {user} lists"
        );
        let body = json!({"order_id": 1, "reason": "again"});
        let answer = post_return(&api.http, api.address, &token, &body, None).await;
        assert_eq!(answer.status, file, "{role} {user} files");
    }
    api.stop().await;
}

#[tokio::test]
async fn p13_someone_elses_order_and_an_unknown_one_look_alike() {
    let api = Api::start().await;
    api.db.seed_orders(1, 1, shared::ids::CustomerId(43)).await;
    let strip = |answer: crate::harness::Answer| {
        let mut problem = answer.problem(400, "unknown-order");
        problem["request_id"] = json!(null);
        problem
    };
    let foreign = strip(api.file(1).await);
    let unknown = strip(api.file(999).await);
    assert_eq!(foreign, unknown);
    api.stop().await;
}

#[tokio::test]
async fn a_remembered_token_is_refused_once_its_time_is_over() {
    let api = Api::start().await;
    let now = jsonwebtoken::get_current_timestamp();
    // With the leeway of 30 s it is good for some five seconds more.
    let claims = json!({"user_id": 42, "role": "customer", "exp": now - 25});
    let token = api.keys.mint(claims);
    api.get("/returns/1", &token)
        .await
        .problem(404, "not-found");
    let deadline = Instant::now() + Duration::from_secs(15);
    while api.get("/returns/1", &token).await.status != 401 {
        assert!(Instant::now() < deadline, "it is still good");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(jsonwebtoken::get_current_timestamp() > now + 4, "too early");
}
