//! A payment provider behind JSON over HTTP; docs/GATEWAY.md is the contract.
//!
//! One call is one request: nothing is repeated here, redirects are not followed, and a response that deviates from the
//! contract counts as none. An error says whether the request can have had an effect.

mod admission;
mod args;
mod refusals;
mod spans;
mod wire;

use std::time::Duration;

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, Method, Request, RequestBuilder, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use shared::domain::refund::{ParkReason, ProviderKey};

use super::{
    Answer, CallFailed, CallKind, Capabilities, GatewayName, ProviderRefund, RefundGateway,
    RefundRequest,
};
use admission::Admission;
use spans::CallSpan;

pub use args::HttpArgs;

/// A response holds a few hundred bytes.
const RESPONSE_BYTES: usize = 64 * 1024;
/// A longer pause that the provider asks for is cut to this: one header should not stop an attempt for a day.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// RFC 9110 allows 429 without Retry-After.
const PAUSE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct Http {
    name: GatewayName,
    client: Client,
    url: Url,
    token: Option<SecretString>,
    native_idempotency: bool,
    admission: Admission,
}

impl Http {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The TLS library cannot be set up.
    pub fn new(
        name: GatewayName,
        url: Url,
        args: &HttpArgs,
        parallel_calls: usize,
    ) -> reqwest::Result<Self> {
        let pool_idle = Duration::from_millis(args.gateway_pool_idle_ms);
        let kept = if pool_idle.is_zero() {
            0
        } else {
            parallel_calls
        };
        let client = Client::builder()
            .user_agent(concat!("refund-consumer/", env!("CARGO_PKG_VERSION")))
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            // Money goes where GATEWAY_URL says, not where a variable of the shell does.
            .no_proxy()
            .pool_max_idle_per_host(kept)
            // A connection that is kept for longer may be closed by the provider at the moment of the next call. What was
            // written then may have arrived, so the outcome is unknown. (A request of which no byte was written is sent again
            // by hyper on a new connection.)
            .pool_idle_timeout(pool_idle)
            .connect_timeout(Duration::from_millis(args.gateway_connect_timeout_ms))
            .timeout(Duration::from_millis(args.gateway_call_timeout_ms))
            .build()?;
        Ok(Self {
            name,
            client,
            url,
            token: args.gateway_token.clone(),
            native_idempotency: args.gateway_idempotency_keys,
            admission: Admission::new(args),
        })
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.url.clone();
        url.path_segments_mut()
            .expect("GATEWAY_URL is http or https")
            .pop_if_empty()
            .extend(path);
        let request = self.client.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        }
    }

    /// Sends, and reads the whole response.
    async fn send(
        &self,
        request: RequestBuilder,
        sent_before: u32,
    ) -> Result<(StatusCode, Vec<u8>), CallFailed> {
        let request = request.build().map_err(|error| failed(&error))?;
        let span = CallSpan::begin(&request, sent_before);
        let result = self.send_once(request).await;
        span.end(&result);
        result
    }

    /// The circuit breaker learns how it went, also when this future is dropped.
    async fn send_once(&self, request: Request) -> Result<(StatusCode, Vec<u8>), CallFailed> {
        let call = self.admission.begin_call();
        let sent = self.client.execute(request).await;
        let mut response = sent.map_err(|error| failed(&error))?;
        let status = response.status();
        let busy = status == StatusCode::SERVICE_UNAVAILABLE
            && response.headers().contains_key(RETRY_AFTER);
        if status == StatusCode::TOO_MANY_REQUESTS || busy {
            self.admission.pause(retry_after(response.headers()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error))? {
            if body.len() + chunk.len() > RESPONSE_BYTES {
                return Err(not_understood("answer_too_large", status, b""));
            }
            body.extend_from_slice(&chunk);
        }
        // Without access every call fails: like an outage, that opens the circuit.
        if !status.is_server_error() && !is_denied(status) {
            call.succeeded();
        }
        Ok((status, body))
    }
}

impl Http {
    /// The refusal, if access is denied to this refund only. For a lost right or a wrong token no single refund is to blame.
    fn denied(
        &self,
        kind: CallKind,
        key: &ProviderKey,
        status: StatusCode,
        body: &[u8],
    ) -> Option<CallFailed> {
        let is_alone = is_denied(status) && self.admission.is_about(kind, key);
        is_alone.then(|| CallFailed::Refused {
            reason: ParkReason::Refused,
            answer: answer(NOT_AUTHORIZED, status, body),
        })
    }

    fn not_looked_up(&self, key: &ProviderKey, status: StatusCode, body: &[u8]) -> CallFailed {
        let denied = self.denied(CallKind::LookUp, key, status, body);
        denied.unwrap_or_else(|| without_refund(status, body))
    }

    /// Notes whether the provider has answered as in its contract.
    fn learned<T>(
        &self,
        kind: CallKind,
        key: &ProviderKey,
        result: Result<T, CallFailed>,
    ) -> Result<T, CallFailed> {
        match &result {
            Ok(_) => self.admission.accepted(kind, key),
            Err(CallFailed::Refused { .. } | CallFailed::NotUnderstood(_)) => {
                self.admission.refused(kind, key);
            }
            Err(CallFailed::NotSent(_) | CallFailed::Unknown(_) | CallFailed::Unusable(_)) => {}
        }
        result
    }
}

impl RefundGateway for Http {
    fn name(&self) -> &GatewayName {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            native_idempotency: self.native_idempotency,
            asynchronous: true,
        }
    }

    async fn ready(&self, kind: CallKind) {
        self.admission.admit(kind).await;
    }

    fn is_closed(&self) -> bool {
        self.admission.closed_for(CallKind::Submit).is_some()
    }

    fn refuses_all(&self, kind: CallKind) -> bool {
        self.admission.refuses_all(kind)
    }

    async fn submit(&self, request: &RefundRequest) -> Result<ProviderRefund, CallFailed> {
        let mut call = self
            .request(Method::POST, &["refunds"])
            .json(&wire::NewRefund::of(request));
        if self.native_idempotency {
            call = call.header("Idempotency-Key", &request.key.0);
        }
        let refund = match self.send(call, request.sent_before).await? {
            (status @ (StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED), body) => {
                let refund = wire::Refund::read(&body);
                let refund = refund.and_then(|refund| refund.refund_of(&request.key));
                refund.map_err(|failed| with_status(failed, status))
            }
            (status, body) => Err(self
                .denied(CallKind::Submit, &request.key, status, &body)
                .unwrap_or_else(|| refused(status, &body))),
        };
        self.learned(CallKind::Submit, &request.key, refund)
    }

    async fn find(&self, key: &ProviderKey) -> Result<Option<ProviderRefund>, CallFailed> {
        let call = self
            .request(Method::GET, &["refunds"])
            .query(&[("reference", &key.0)]);
        let found = match self.send(call, 0).await? {
            (status @ StatusCode::OK, body) => {
                let found = wire::Found::read(&body).and_then(|found| found.refund_of(key));
                found.map_err(|failed| with_status(failed, status))
            }
            (status, body) => Err(self.not_looked_up(key, status, &body)),
        };
        self.learned(CallKind::LookUp, key, found)
    }

    async fn status(
        &self,
        gateway_ref: &str,
        key: &ProviderKey,
    ) -> Result<Option<ProviderRefund>, CallFailed> {
        let call = self.request(Method::GET, &["refunds", gateway_ref]);
        let found = match self.send(call, 0).await? {
            (status @ StatusCode::OK, body) => {
                let refund = wire::Refund::read(&body);
                let refund = refund.and_then(|refund| refund.refund_named(gateway_ref, key));
                refund
                    .map(Some)
                    .map_err(|failed| with_status(failed, status))
            }
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, body) => Err(self.not_looked_up(key, status, &body)),
        };
        self.learned(CallKind::LookUp, key, found)
    }
}

/// No complete response came.
fn failed(error: &reqwest::Error) -> CallFailed {
    if error.is_connect() {
        CallFailed::NotSent("connect_failed")
    } else if error.is_builder() {
        CallFailed::NotSent("request_not_built")
    } else if error.is_timeout() {
        CallFailed::Unknown("timeout")
    } else {
        CallFailed::Unknown("connection_lost")
    }
}

const NOT_AUTHORIZED: &str = "not_authorized";

fn is_denied(status: StatusCode) -> bool {
    [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status)
}

/// The contract's statuses for a refund that was not accepted. Any other status proves nothing.
fn refused(status: StatusCode, body: &[u8]) -> CallFailed {
    let refused = |reason, code| CallFailed::Refused {
        reason,
        answer: answer(code, status, body),
    };
    match status {
        StatusCode::BAD_REQUEST => refused(ParkReason::Refused, "bad_request"),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            refused(ParkReason::Refused, "not_there")
        }
        StatusCode::UNPROCESSABLE_ENTITY => refused(ParkReason::KeyReused, "key_reused"),
        StatusCode::CONFLICT => not_understood("in_progress", status, body),
        status => without_refund(status, body),
    }
}

/// A look-up that was rejected was not made.
fn without_refund(status: StatusCode, body: &[u8]) -> CallFailed {
    match status {
        StatusCode::TOO_MANY_REQUESTS => CallFailed::NotSent("rate_limited"),
        status if is_denied(status) => CallFailed::NotSent(NOT_AUTHORIZED),
        status if status.is_server_error() => CallFailed::Unknown("server_error"),
        status if status.is_redirection() => not_understood("redirected", status, body),
        status => not_understood("unexpected_status", status, body),
    }
}

fn not_understood(code: &'static str, status: StatusCode, body: &[u8]) -> CallFailed {
    CallFailed::NotUnderstood(answer(code, status, body))
}

fn answer(code: &'static str, status: StatusCode, body: &[u8]) -> Answer {
    Answer {
        code,
        words: format!("{} {}", status.as_u16(), wire::codes(body))
            .trim_end()
            .to_owned(),
    }
}

/// The words of a body that was not understood, after the status that it came with.
fn with_status(failed: CallFailed, status: StatusCode) -> CallFailed {
    match failed {
        CallFailed::NotUnderstood(Answer { code, words }) => CallFailed::NotUnderstood(Answer {
            code,
            words: format!("{} {words}", status.as_u16()).trim_end().to_owned(),
        }),
        other => other,
    }
}

/// Seconds, or a date (RFC 9110, 10.2.3), which is compared with the response's own date and not with our clock.
fn retry_after(headers: &HeaderMap) -> Duration {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let date = |name| httpdate::parse_http_date(text(name)?).ok();
    let seconds = || text(RETRY_AFTER)?.parse().ok().map(Duration::from_secs);
    let until = || date(RETRY_AFTER)?.duration_since(date(DATE)?).ok();
    let pause = seconds().or_else(until).unwrap_or(PAUSE);
    pause.clamp(PAUSE, LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::CALL_RESULTS;

    #[test]
    fn p5_only_statuses_of_the_contract_prove_that_nothing_was_paid() {
        for code in 300..600 {
            let status = StatusCode::from_u16(code).expect("in range");
            let failed = refused(status, b"");
            let proof = matches!(failed, CallFailed::NotSent(_) | CallFailed::Refused { .. });
            assert!(CALL_RESULTS.contains(&failed.as_str()), "{code}");
            assert_eq!(
                proof,
                [400, 401, 403, 404, 405, 422, 429].contains(&code),
                "{code}"
            );
        }
    }

    #[test]
    fn a_pause_has_a_minimum_and_a_maximum() {
        let pause = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().expect("a value"));
            let date = "Wed, 21 Oct 2026 07:27:00 GMT";
            headers.insert(DATE, date.parse().expect("a value"));
            retry_after(&headers)
        };
        assert_eq!(pause("7"), Duration::from_secs(7));
        assert_eq!(pause("0"), PAUSE);
        assert_eq!(pause("99999999"), LONGEST_PAUSE);
        assert_eq!(
            pause("Wed, 21 Oct 2026 07:28:00 GMT"),
            Duration::from_secs(60)
        );
        assert_eq!(pause("Wed, 21 Oct 2026 07:26:00 GMT"), PAUSE);
        assert_eq!(pause("soon"), PAUSE);
        assert_eq!(retry_after(&HeaderMap::new()), PAUSE);
    }
}
