//! The public description of the api: the document, its page, and a page for each error.

use std::collections::BTreeSet;

use crate::harness::{Answer, Api};

async fn open(api: &Api, path: &str) -> Answer {
    let request = api.http.get(api.url(path));
    Answer::read(request.send().await.expect("a response")).await
}

#[tokio::test]
async fn the_document_is_served_and_every_error_in_it_has_a_page() {
    let api = Api::start().await;
    let answer = open(&api, "/openapi.json").await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/json"))
    );
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    let examples = document["components"]["examples"]
        .as_object()
        .expect("examples");
    assert!(examples.len() > 20, "{}", examples.len());
    for (slug, example) in examples {
        let kind = example["value"]["type"].as_str().expect("a type");
        assert_eq!(kind, format!("/problems/{slug}"));
        let page = open(&api, kind).await;
        let text = String::from_utf8(page.body).expect("UTF-8");
        assert_eq!(page.status, 200, "{kind}");
        assert!(
            text.contains(example["value"]["title"].as_str().expect("a title")),
            "{text}"
        );
    }
    open(&api, "/problems/none").await.problem(404, "not-found");
    api.stop().await;
}

/// What a generated client and a reader without our code need.
#[tokio::test]
async fn the_document_says_where_who_and_which_problems_and_events_there_are() {
    let api = Api::start().await;
    let document = open(&api, "/openapi.json").await.json();
    assert_eq!(document["servers"][0]["url"], "/");
    assert!(document["info"]["contact"]["name"].is_string());
    let schemas = &document["components"]["schemas"];
    let kinds = &schemas["Problem"]["properties"]["code"]["enum"];
    let kinds: BTreeSet<&str> = kinds
        .as_array()
        .expect("an enum")
        .iter()
        .filter_map(|kind| kind.as_str())
        .collect();
    let examples = document["components"]["examples"]
        .as_object()
        .expect("examples");
    let shown = examples
        .values()
        .filter_map(|example| example["value"]["code"].as_str());
    assert_eq!(kinds, shown.collect());
    let types = document["paths"]["/events"]["get"]["parameters"]
        .as_array()
        .expect("parameters")
        .iter();
    let types = types
        .clone()
        .find(|one| one["name"] == "event_type")
        .expect("the filter");
    let types = types["schema"]["enum"].as_array().expect("an enum");
    assert!(
        types.contains(&"refund.succeeded".into()) && !types.contains(&"return.refunded".into()),
        "{types:?}"
    );
    let text = document.to_string();
    assert!(!text.contains("return.refunded"));
    let stream = &document["paths"]["/returns/{id}/stream"]["get"]["responses"]["200"]["content"]["text/event-stream"];
    let stream = stream.to_string();
    for (schema, field) in [("StreamStatus", "seq"), ("StreamEnd", "reason")] {
        assert!(
            stream.contains(&format!("#/components/schemas/{schema}")),
            "{stream}"
        );
        assert!(schemas[schema]["properties"][field].is_object(), "{schema}");
    }
    assert!(text.contains("2^53"), "browsers round larger numbers");
    api.stop().await;
}

/// The document and the routes have the same paths and methods.
#[tokio::test]
async fn every_operation_of_the_document_exists_and_other_methods_do_not() {
    let secret = "the-secret-of-the-payment-provider";
    let api = Api::start_with(&["--gateway-notification-secret", secret]).await;
    let document = open(&api, "/openapi.json").await.json();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        let operations = operations.as_object().expect("operations");
        let methods: BTreeSet<String> = operations.keys().map(|name| name.to_uppercase()).collect();
        let url = api.url(&path.replace("{id}", "1"));
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            let name = method.parse().expect("a method");
            let answer = Answer::read(
                api.http
                    .request(name, &url)
                    .send()
                    .await
                    .expect("a response"),
            )
            .await;
            if methods.contains(method) && path == "/gateway/notifications" {
                // It wants a signature, and a body before that.
                answer.problem(415, "unsupported-media-type");
            } else if methods.contains(method) {
                // 401 without a token, so the operation exists.
                answer.problem(401, "unauthenticated");
            } else {
                answer.problem(405, "method-not-allowed");
                let allowed: BTreeSet<String> = answer
                    .header("allow")
                    .expect("Allow")
                    .split(", ")
                    .map(str::to_owned)
                    .collect();
                // HEAD comes with GET (RFC 9110, 9.3.2), so a document need not list it.
                let mut methods = methods.clone();
                if methods.contains("GET") {
                    methods.insert("HEAD".to_owned());
                }
                assert_eq!(allowed, methods, "{method} {path}");
            }
        }
    }
    api.stop().await;
}

#[tokio::test]
async fn the_page_loads_nothing_from_other_servers() {
    let api = Api::start().await;
    let page = open(&api, "/docs").await;
    let text = String::from_utf8(page.body.clone()).expect("UTF-8");
    assert_eq!(page.status, 200, "{text}");
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("http"),
        "{policy}"
    );
    let mut loaded = 0;
    for attribute in ["src=\"", "href=\""] {
        for part in text.split(attribute).skip(1) {
            let file = part.split('"').next().expect("a file");
            assert!(!file.contains("://") && !file.starts_with("//"), "{file}");
            let path = format!("/docs/{}", file.trim_start_matches("./"));
            assert_eq!(open(&api, &path).await.status, 200, "{path}");
            loaded += 1;
        }
    }
    assert!(loaded > 3, "{text}");
    let initializer = open(&api, "/docs/swagger-initializer.js").await;
    let script = String::from_utf8(initializer.body).expect("UTF-8");
    assert!(
        script.contains("/openapi.json") && !script.contains("petstore"),
        "{script}"
    );
    for missing in ["/docs/none.js", "/docs/..%2fCargo.toml"] {
        open(&api, missing).await.problem(404, "not-found");
    }
    api.stop().await;
}
