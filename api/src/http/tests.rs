use std::task::{Context, Poll};

use super::*;

/// Routes that panic, before or after the first await.
struct Panics {
    at_once: bool,
}

impl Service<Request<String>> for Panics {
    type Response = Response;
    type Error = Infallible;
    type Future = futures_util::future::BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<String>) -> Self::Future {
        assert!(!self.at_once, "on purpose");
        Box::pin(async {
            tokio::task::yield_now().await;
            panic!("on purpose")
        })
    }
}

#[tokio::test]
async fn a_panic_is_one_500() {
    let front = Front {
        proxies: Proxies::default(),
        forwarded_warning: ForwardedWarning::default(),
        public_url: PublicUrl::default(),
        address_rate: None,
        cors: Cors::new(&[]),
        deadline: Duration::from_secs(60),
        metrics: Arc::new(Metrics::new()),
    };
    for at_once in [true, false] {
        let request = Request::builder().header("host", "a").uri("/returns");
        let request = request.body(String::new()).expect("a request");
        let response = front.respond(Panics { at_once }, request).await;
        assert_eq!(response.status(), 500);
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        assert!(!response.headers().contains_key("connection"));
    }
}
