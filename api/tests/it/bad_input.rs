//! Invalid requests: how they are refused, and that the field is named.

use serde_json::json;

use crate::harness::{Answer, Api, CUSTOMER};

async fn post(api: &Api, content_type: Option<&str>, body: &str) -> Answer {
    let mut request = api
        .http
        .post(api.url("/returns"))
        .bearer_auth(api.customer_token())
        .body(body.to_owned());
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    Answer::read(request.send().await.expect("a response")).await
}

const JSON: Option<&str> = Some("application/json");

#[tokio::test]
async fn a_bad_body_is_refused_and_its_field_named() {
    let api = Api::start().await;
    for body in ["", "{", "nonsense", r#"{"order_id":1,"reason":"x"}{}"#] {
        post(&api, JSON, body).await.problem(400, "bad-request");
    }
    let long = format!(r#"{{"order_id":1,"reason":"{}"}}"#, "x".repeat(1001));
    for (body, pointer) in [
        (r#"{"order_id":1,"reason":"x","extra":1}"#, "#/extra"),
        (r#"{"order_id":1,"a/b~c":1}"#, "#/a~1b~0c"),
        (r#"{"order_id":"1","reason":"x"}"#, "#/order_id"),
        (r#"{"order_id":1.0,"reason":"x"}"#, "#/order_id"),
        (r#"{"order_id":-1,"reason":"x"}"#, "#/order_id"),
        (r#"{"order_id":99999999999999999999}"#, "#/order_id"),
        (r#"{"order_id":1,"reason":"a\u0007b"}"#, "#/reason"),
        (r#"{"order_id":1,"reason":7}"#, "#/reason"),
        (r#"{"order_id":1,"order_id":1}"#, "#/order_id"),
        (r#"{"reason":"x"}"#, "#/order_id"),
        (long.as_str(), "#/reason"),
        ("[]", "#"),
    ] {
        let problem = post(&api, JSON, body).await.problem(422, "invalid-fields");
        let errors = problem["errors"].as_array().expect("errors");
        assert_eq!(
            (errors.len(), &errors[0]["pointer"]),
            (1, &json!(pointer)),
            "{body}"
        );
    }
    api.stop().await;
}

/// In the words of the API: a client's developer knows no parser and none of its types.
#[tokio::test]
async fn every_wrong_field_of_a_body_is_named_in_words_of_the_api() {
    let api = Api::start().await;
    let body = r#"{"order_id": "1", "reason": 5, "reason_code": "Too Big", "customer_id": 1.5, "colour": "red"}"#;
    let problem = post(&api, JSON, body).await.problem(422, "invalid-fields");
    assert_eq!(
        problem["errors"],
        json!([
            {"pointer": "#/order_id", "detail": "must be a whole number from 1 to 9223372036854775807"},
            {"pointer": "#/customer_id", "detail": "must be a whole number from 1 to 9223372036854775807"},
            {"pointer": "#/reason", "detail": "must be text"},
            {"pointer": "#/reason_code", "detail": "must be 1 to 32 of a-z, 0-9 and _"},
            {"pointer": "#/colour", "detail": "is not a field of this request"},
        ])
    );
    let decision = r#"{"reason_code": 7, "note": "x"}"#;
    let id = {
        api.db.seed_orders(1, 1, CUSTOMER).await;
        api.file(1).await.return_id()
    };
    let request = api
        .http
        .post(api.url(&format!("/returns/{id}/cancel")))
        .bearer_auth(api.customer_token())
        .header("if-match", "*")
        .header("content-type", "application/json")
        .body(decision);
    let answer = Answer::read(request.send().await.expect("a response")).await;
    let problem = answer.problem(422, "invalid-fields");
    assert_eq!(
        problem["errors"],
        json!([
            {"pointer": "#/reason_code", "detail": "must be text"},
            {"pointer": "#/note", "detail": "is not a field of this request"},
        ])
    );
    api.stop().await;
}

/// A form's textarea sends line breaks as CR LF, a script's as LF; and a shop need not ask for a reason.
#[tokio::test]
async fn a_reason_is_optional_and_may_have_several_lines() {
    let api = Api::start().await;
    api.db.seed_orders(1, 8, CUSTOMER).await;
    let reasons = [
        (json!({}), ""),
        (json!({"reason": null}), ""),
        (json!({"reason": ""}), ""),
        (json!({"reason": " "}), " "),
        (
            json!({"reason": "too small\nand blue"}),
            "too small\nand blue",
        ),
        (
            json!({"reason": "too small\r\nand blue\r\n"}),
            "too small\r\nand blue\r\n",
        ),
        (json!({"reason": "a\tb"}), "a\tb"),
    ];
    for (order, (mut body, stored)) in (1..).zip(reasons) {
        body["order_id"] = json!(order);
        let id = post(&api, JSON, &body.to_string()).await.return_id();
        let shown = api
            .get(&format!("/returns/{id}"), &api.customer_token())
            .await;
        assert_eq!(shown.json()["reason"], stored, "{body}");
    }
    // Without a reason, and with an empty one, is the same request.
    let keyed = async |body: serde_json::Value| {
        let token = api.customer_token();
        crate::harness::post_return(&api.http, api.address, &token, &body, Some("k")).await
    };
    let first = keyed(json!({"order_id": 8})).await.return_id();
    let again = keyed(json!({"order_id": 8, "reason": ""})).await;
    assert_eq!(again.return_id(), first);
    for control in ["\u{0}", "\u{b}", "\u{7f}", "\u{85}"] {
        let body = json!({"order_id": 1, "reason": format!("a{control}b")}).to_string();
        let problem = post(&api, JSON, &body).await.problem(422, "invalid-fields");
        assert_eq!(problem["errors"][0]["pointer"], "#/reason");
    }
    api.stop().await;
}

#[tokio::test]
async fn the_content_type_must_be_json() {
    let api = Api::start().await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    let good = json!({"order_id": 1, "reason": "x"}).to_string();
    for content_type in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
    ] {
        post(&api, content_type, &good)
            .await
            .problem(415, "unsupported-media-type");
    }
    let answer = post(&api, Some("Application/JSON; charset=utf-8"), &good).await;
    assert_eq!(answer.status, 201);
    api.stop().await;
}

#[tokio::test]
async fn a_large_body_is_refused_with_and_without_a_length() {
    let api = Api::start().await;
    let large = format!(r#"{{"order_id":1,"reason":"{}"}}"#, "x".repeat(20_000));
    post(&api, JSON, &large)
        .await
        .problem(413, "body-too-large");
    let stream = futures_util::stream::iter(
        large
            .into_bytes()
            .chunks(1_000)
            .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
            .collect::<Vec<_>>(),
    );
    let chunked = api
        .http
        .post(api.url("/returns"))
        .bearer_auth(api.customer_token())
        .header("content-type", "application/json")
        .body(reqwest::Body::wrap_stream(stream));
    let answer = Answer::read(chunked.send().await.expect("a response")).await;
    answer.problem(413, "body-too-large");
    api.stop().await;
}

#[tokio::test]
async fn unknown_paths_and_methods_get_problems() {
    let api = Api::start().await;
    let token = api.customer_token();
    for path in ["/", "/return", "/returns/1/2", "/returns/abc", "/metrics"] {
        api.get(path, &token).await.problem(404, "not-found");
    }
    for (method, path) in [
        ("PUT", "/returns"),
        ("DELETE", "/returns/1"),
        ("POST", "/returns/1"),
    ] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let request = api.http.request(method, api.url(path)).bearer_auth(&token);
        let answer = Answer::read(request.send().await.expect("a response")).await;
        answer.problem(405, "method-not-allowed");
    }
    api.stop().await;
}

#[tokio::test]
async fn a_bad_idempotency_key_is_refused() {
    let api = Api::start().await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    let long = "k".repeat(256);
    for key in ["", "a b", &long] {
        api.file_with(1, Some(key))
            .await
            .problem(400, "bad-request");
    }
    assert_eq!(api.file(1).await.status, 201);
    api.stop().await;
}

#[tokio::test]
async fn every_wrong_list_parameter_is_named() {
    let api = Api::start().await;
    let token = api.admin_token();
    let problem = api
        .get("/returns?limit=0&status=lost", &token)
        .await
        .problem(422, "invalid-fields");
    assert_eq!(problem["errors"][0]["parameter"], "status");
    assert_eq!(problem["errors"][1]["parameter"], "limit");
    api.stop().await;
}

/// A misspelt filter that is ignored would show rows that the caller believes to be the ones asked for.
#[tokio::test]
async fn every_list_refuses_unknown_parameters() {
    let api = Api::start().await;
    for (list, token) in [
        ("/returns", api.admin_token()),
        ("/returns", api.customer_token()),
        ("/orders", api.customer_token()),
        ("/events", api.admin_token()),
        ("/operator-actions", api.admin_token()),
    ] {
        let answer = api.get(&format!("{list}?offset=3"), &token).await;
        let problem = answer.problem(400, "bad-request");
        let detail = problem["detail"].as_str().expect("a text");
        assert!(detail.contains("offset"), "{list}: {detail}");
    }
    api.stop().await;
}
