//! The limits of a token's owner: tokens that are not accepted any more use up nothing of them, and narrowed tokens have
//! limits of their own.

use std::time::{Duration, Instant};

use jsonwebtoken::get_current_timestamp;
use serde_json::json;
use shared::domain::status::Action;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{Answer, Api, CUSTOMER, until};
use crate::moves::change;
use crate::tokens::{Format, Issuer, READ_ONLY, attenuate};
use crate::wire::{Wire, statuses};

/// The responses to this many requests at once with each of these tokens. They are refused because of the role, so that
/// none waits for the database.
async fn burst(api: &Api, tokens: &[(&str, usize)]) -> Vec<u16> {
    let request = |token: &str, last: bool| {
        let close = if last { "Connection: close\r\n" } else { "" };
        format!("GET /returns HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{close}\r\n")
    };
    let all: Vec<&str> = tokens
        .iter()
        .flat_map(|(token, count)| std::iter::repeat_n(*token, *count))
        .collect();
    let text: String = all
        .iter()
        .enumerate()
        .map(|(n, token)| request(token, n + 1 == all.len()))
        .collect();
    let mut wire = Wire::connect(api.address).await;
    wire.send(text.as_bytes()).await;
    let found = statuses(&wire.until_closed().await);
    assert_eq!(found.len(), all.len(), "{found:?}");
    found
}

/// A token of the owner that the api has accepted once, and that has expired.
async fn expired_token(api: &Api, format: Format) -> String {
    // A slow machine needs a longer life.
    for life in [1, 2, 4, 8, 16, 32] {
        let end = get_current_timestamp() + life;
        let claims = json!({"user_id": 42, "role": "auditor", "exp": end});
        let token = api.keys.mint_as(format, claims);
        if burst(api, &[(&token, 1)]).await == [403] {
            until("it has expired", Duration::from_secs(60), || async {
                get_current_timestamp() >= end
            })
            .await;
            return token;
        }
    }
    panic!("no token was accepted before its end");
}

#[tokio::test]
async fn p12_an_expired_token_uses_up_nothing_of_its_owner() {
    // A burst of six. The requests without an expired token are four, so the owner is always within it.
    let api = Api::start_with(&["--rate-per-caller", "3", "--auth-leeway-secs", "0"]).await;
    for format in Format::ALL {
        let short = expired_token(&api, format).await;
        let good = api.token_of(format, 42, "auditor");
        let found = burst(&api, &[(&short, 20), (&good, 1)]).await;
        assert_eq!(found[..20], [401; 20], "{format:?}");
        assert_eq!(found[20], 403, "{format:?}: the owner is within the rate");
    }
    api.stop().await;
}

#[tokio::test]
async fn p12_a_token_of_a_retired_key_uses_up_nothing_of_its_owner() {
    // A burst of four. The requests without a retired key are three, so the owner is always within it.
    let api = Api::start_with(&["--rate-per-caller", "2"]).await;
    let stolen = Issuer::new(2);
    api.keys.write(&[&stolen]);
    for key_use in ["sig", "biscuit"] {
        api.until_metric(&format!(r#"auth_keys{{use="{key_use}"}} 2"#))
            .await;
    }
    let owner = json!({"user_id": 42, "role": "auditor"});
    let tokens = Format::ALL.map(|format| stolen.mint_as(format, owner.clone()));
    for token in &tokens {
        assert_eq!(api.get("/returns", token).await.status, 403);
    }
    api.keys.write(&[]);
    for key_use in ["sig", "biscuit"] {
        api.until_metric(&format!(r#"auth_keys{{use="{key_use}"}} 1"#))
            .await;
    }
    let good = api.token_of(Format::Jwt, 42, "auditor");
    let found = burst(&api, &[(&tokens[0], 10), (&tokens[1], 10), (&good, 1)]).await;
    assert_eq!(found[..20], [401; 20]);
    assert_eq!(found[20], 403);
    api.stop().await;
}

#[tokio::test]
async fn p12_narrowed_tokens_have_one_rate_together_and_leave_the_owners_alone() {
    let api = Api::start_with(&["--rate-per-caller", "1"]).await;
    let owner = api.token_of(Format::Biscuit, 42, "auditor");
    let couriers = ["check if true", READ_ONLY].map(|check| attenuate(&owner, check));
    let begun = Instant::now();
    let found = burst(&api, &[(&couriers[0], 10), (&couriers[1], 10), (&owner, 1)]).await;
    let admitted = found[..20].iter().filter(|status| **status == 403).count();
    let allowance = 2 + usize::try_from(begun.elapsed().as_secs()).expect("few");
    assert!((2..=allowance).contains(&admitted), "{found:?}");
    assert_eq!(found[20], 403, "{found:?}");
    api.stop().await;
}

/// The status of a request for a stream, and the response, which holds the stream open.
async fn stream_of(api: &Api, id: i64, token: &str) -> (u16, reqwest::Response) {
    let request = api.http.get(api.url(&format!("/returns/{id}/stream")));
    let response = request.bearer_auth(token).send().await.expect("a response");
    (response.status().as_u16(), response)
}

#[tokio::test]
async fn p12_streams_of_narrowed_tokens_leave_those_of_the_owner_alone() {
    let api = Api::start_with(&["--streams-per-caller", "1"]).await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    let id = api.file(1).await.return_id();
    let owner = api.token_of(Format::Biscuit, CUSTOMER.0, "customer");
    let couriers = ["check if true", READ_ONLY].map(|check| attenuate(&owner, check));
    let (status, _of_courier) = stream_of(&api, id, &couriers[0]).await;
    assert_eq!(status, 200);
    let (status, refused) = stream_of(&api, id, &couriers[1]).await;
    assert_eq!(status, 429);
    Answer::read(refused).await.problem(429, "too-many-streams");
    let (status, _of_owner) = stream_of(&api, id, &owner).await;
    assert_eq!(status, 200);
    api.stop().await;
}

/// A stream whose client has read nothing after the first bytes, and has much to read.
async fn unread_stream(api: &Api, id: i64, token: &str) -> TcpStream {
    change(&api.db, id, &[Action::Approve, Action::Claim]).await;
    // Some 100 bytes each: more than the buffers between the two.
    for _ in 0..20 {
        change(&api.db, id, &[Action::OutcomeUnknown; 200]).await;
    }
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(api.address).await.expect("connect");
    let request = format!(
        "GET /returns/{id}/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nLast-Event-ID: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut begun = [0; 12];
    stream.read_exact(&mut begun).await.expect("a response");
    assert_eq!(&begun, b"HTTP/1.1 200");
    stream
}

/// A thief who does not read must not keep the owner's streams for ever.
#[tokio::test]
async fn p12_a_stream_that_is_not_read_ends_with_the_key_of_its_token() {
    let flags = [
        "--streams-per-caller",
        "1",
        "--api-write-timeout-secs",
        "3600",
    ];
    let api = Api::start_with(&flags).await;
    let stolen = Issuer::new(2);
    api.keys.write(&[&stolen]);
    api.until_metric(r#"auth_keys{use="sig"} 2"#).await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    let id = api.file(1).await.return_id();
    let owner = json!({"user_id": CUSTOMER.0, "role": "customer"});
    let token = stolen.mint_as(Format::Jwt, owner);
    let unread = unread_stream(&api, id, &token).await;
    assert_eq!(stream_of(&api, id, &api.customer_token()).await.0, 429);
    api.keys.write(&[]);
    until("the owner may follow", Duration::from_secs(20), || async {
        stream_of(&api, id, &api.customer_token()).await.0 == 200
    })
    .await;
    drop(unread);
    api.stop().await;
}
