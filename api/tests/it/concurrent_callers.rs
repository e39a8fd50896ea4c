//! Many callers at once, with valid tokens of both formats: none is refused.
//!
//! Three seconds by default; `CONCURRENT_SECS=60` is the long form.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::{Api, CUSTOMER, with_permit};
use crate::tokens::{Format, READ_ONLY, attenuate};
use shared::test_support::long_form;

const CALLERS: i64 = 64;

/// The api verifies a new token in full and caches it afterwards. Each caller uses
/// one token for this many requests.
const REQUESTS_PER_TOKEN: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn no_valid_token_of_sixty_four_callers_is_refused() {
    let lasting = Duration::from_secs(long_form("CONCURRENT_SECS", 3));
    let api = Arc::new(Api::start().await);
    api.db.seed_orders(1, 1, CUSTOMER).await;
    let id = api.file(1).await.return_id();
    let deadline = Instant::now() + lasting;
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        callers.spawn(ask_until(deadline, Arc::clone(&api), id, caller));
    }
    let counts = callers.join_all().await;
    let requests: u64 = counts.iter().sum();
    eprintln!("{requests} requests of {CALLERS} callers in {lasting:?}, no token refused");
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    let metric = api.ops("/metrics").await.1;
    let mut refusals = metric
        .lines()
        .filter(|line| line.starts_with("auth_refusals_total{"));
    assert!(refusals.all(|line| line.ends_with("} 0")), "{metric}");
    Arc::into_inner(api)
        .expect("all callers are done")
        .stop()
        .await;
}

async fn ask_until(deadline: Instant, api: Arc<Api>, id: i64, caller: i64) -> u64 {
    let path = format!("/returns/{id}");
    let mut count = 0;
    while Instant::now() < deadline {
        let token = token(&api, caller, count);
        for _ in 0..REQUESTS_PER_TOKEN {
            let answer = with_permit(|| api.get(&path, &token)).await;
            assert_eq!(
                answer.status,
                200,
                "caller {caller}, request {count}: {}",
                String::from_utf8_lossy(&answer.body)
            );
            count += 1;
        }
    }
    count
}

/// Alternately a JWT, a Biscuit, and a Biscuit with two blocks that its holder appended.
fn token(api: &Api, caller: i64, count: u64) -> String {
    let claims =
        json!({"user_id": CUSTOMER.0, "role": "customer", "jti": format!("{caller}-{count}")});
    let mint = |format| api.keys.mint_as(format, claims.clone());
    match caller % 3 {
        0 => mint(Format::Jwt),
        1 => mint(Format::Biscuit),
        _ => {
            let child = attenuate(&mint(Format::Biscuit), READ_ONLY);
            attenuate(&child, "check if time($now), $now < 2099-01-01T00:00:00Z")
        }
    }
}
