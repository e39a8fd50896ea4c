//! The HTTP side: docs/GATEWAY.md, and faults.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use shared::runtime::http_server::{self, ConnectionMetrics, Limits};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::faults::{Call, Fault, Faults, Script};
use super::ledger::{Accepted, Entry, Ledger, RefundRequest, Status};
use super::notifier::Notifier;

const LIMITS: Limits = Limits {
    max_connections: 2_048,
    header_timeout: Duration::from_secs(60),
    write_timeout: Duration::from_secs(60),
    drain: Duration::from_secs(1),
};
const BODY_BYTES: usize = 64 * 1024;
/// Seconds in Retry-After.
const PAUSE: &str = "1";

const DECLINED_BECAUSE: &str = "account_closed";

type HttpResponse = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// The provider.
#[derive(Debug)]
pub(super) struct Provider {
    state: Mutex<State>,
    delay: Duration,
    hang: Duration,
    notifier: Option<Notifier>,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    faults: Faults,
}

/// A refund, as the contract has it.
#[derive(Debug, Serialize)]
struct RefundView<'a> {
    id: &'a str,
    reference: &'a str,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    amount: &'a str,
    currency: &'a str,
}

impl<'a> RefundView<'a> {
    fn of(entry: &'a Entry, now: OffsetDateTime) -> Self {
        let status = entry.status(now);
        Self {
            id: &entry.id,
            reference: &entry.reference,
            status,
            code: (status == Status::Declined).then_some(DECLINED_BECAUSE),
            amount: &entry.amount,
            currency: &entry.currency,
        }
    }
}

impl Provider {
    pub(super) fn new(
        ledger: Ledger,
        faults: Faults,
        delay: Duration,
        hang: Duration,
        notifier: Option<Notifier>,
    ) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State { ledger, faults }),
            delay,
            hang,
            notifier,
        })
    }

    /// Serves until `stop`.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let service = service_fn(move |request| {
            let provider = Arc::clone(&self);
            async move { Ok::<_, Infallible>(provider.respond(request).await) }
        });
        http_server::serve(
            listener,
            service,
            LIMITS,
            ConnectionMetrics::default(),
            stop,
        )
        .await;
    }

    async fn respond(&self, request: Request<Incoming>) -> HttpResponse {
        let path = request.uri().path().to_owned();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match (request.method(), segments.as_slice()) {
            (&Method::POST, ["refunds"]) => self.submit(request).await,
            (&Method::GET, ["refunds"]) => match reference(request.uri().query()) {
                Some(reference) => self.find(&reference).await,
                None => problem(StatusCode::BAD_REQUEST, "reference_missing"),
            },
            (&Method::GET, ["refunds", id]) => self.show(id).await,
            (&Method::GET, ["ledger"]) => self.list_all(),
            (&Method::PUT, ["faults", reference]) => {
                let reference = (*reference).to_owned();
                self.script(reference, request).await
            }
            (&Method::PUT, ["reversals", reference]) => self.reverse(reference).await,
            (&Method::GET, ["healthz"]) => empty(StatusCode::NO_CONTENT),
            _ => problem(StatusCode::NOT_FOUND, "not_found"),
        }
    }

    async fn submit(&self, request: Request<Incoming>) -> HttpResponse {
        let key = request.headers().get("idempotency-key");
        let key = key.and_then(|key| key.to_str().ok()).map(str::to_owned);
        let Some(refund) = read::<RefundRequest>(request).await.filter(is_payable) else {
            return problem(StatusCode::BAD_REQUEST, "bad_request");
        };
        let fault = self.state().faults.next(Call::Submit, &refund.reference);
        match fault {
            Some(Fault::TimeoutBefore) => return self.hang().await,
            Some(Fault::ServerError) => return server_error(),
            Some(Fault::TooManyRequests) => return too_many(),
            Some(Fault::InProgress) => return problem(StatusCode::CONFLICT, "in_progress"),
            Some(Fault::KeyReused) => return key_reused(),
            Some(
                Fault::TimeoutAfter
                | Fault::Reset
                | Fault::ServerErrorAfter
                | Fault::Decline
                | Fault::DeclineThenPays
                | Fault::SlowBody
                | Fault::WrongAmount,
            )
            | None => {}
        }
        let now = OffsetDateTime::now_utc();
        let declined = fault == Some(Fault::Decline);
        let accepted = self
            .state()
            .ledger
            .accept(refund, key.as_deref(), declined, now);
        let (status, entry) = match accepted {
            Ok(Accepted::New(entry)) => (StatusCode::CREATED, entry),
            Ok(Accepted::Again(entry)) => (StatusCode::OK, entry),
            Ok(Accepted::KeyReused) => return key_reused(),
            Err(_) => return server_error(),
        };
        tokio::time::sleep(self.delay).await;
        self.spoil(fault, status, json!(RefundView::of(&entry, now)))
            .await
    }

    async fn find(&self, reference: &str) -> HttpResponse {
        let now = OffsetDateTime::now_utc();
        let (fault, found) = {
            let mut state = self.state();
            let fault = state.faults.next(Call::Find, reference);
            let found = state.ledger.find(reference, now);
            let views: Vec<Value> = found
                .iter()
                .map(|entry| json!(RefundView::of(entry, now)))
                .collect();
            (fault, views)
        };
        self.spoil(fault, StatusCode::OK, json!({ "refunds": found }))
            .await
    }

    async fn show(&self, id: &str) -> HttpResponse {
        let now = OffsetDateTime::now_utc();
        let known = {
            let mut state = self.state();
            let entry = state.ledger.get(id).cloned();
            entry.map(|entry| (state.faults.next(Call::Find, &entry.reference), entry))
        };
        match known {
            Some((fault, entry)) => {
                let body = json!(RefundView::of(&entry, now));
                self.spoil(fault, StatusCode::OK, body).await
            }
            None => problem(StatusCode::NOT_FOUND, "not_found"),
        }
    }

    fn list_all(&self) -> HttpResponse {
        let now = OffsetDateTime::now_utc();
        let state = self.state();
        let body: Vec<RefundView<'_>> = state
            .ledger
            .all()
            .iter()
            .map(|entry| RefundView::of(entry, now))
            .collect();
        json_response(StatusCode::OK, &json!({ "refunds": body }))
    }

    async fn script(&self, reference: String, request: Request<Incoming>) -> HttpResponse {
        match read::<Script>(request).await {
            Some(script) => {
                self.state().faults.write(reference, script);
                empty(StatusCode::NO_CONTENT)
            }
            None => problem(StatusCode::BAD_REQUEST, "bad_request"),
        }
    }

    /// Takes a refund back, and sends a notification. 502 if the notification was not accepted.
    async fn reverse(&self, reference: &str) -> HttpResponse {
        let reversed = self
            .state()
            .ledger
            .reverse(reference, OffsetDateTime::now_utc());
        match reversed {
            Ok(true) => {}
            Ok(false) => return problem(StatusCode::NOT_FOUND, "not_found"),
            Err(_) => return server_error(),
        }
        match &self.notifier {
            Some(notifier) if !notifier.notify(reference).await => {
                problem(StatusCode::BAD_GATEWAY, "not_notified")
            }
            Some(_) | None => empty(StatusCode::NO_CONTENT),
        }
    }

    /// The response, changed by a fault.
    async fn spoil(&self, fault: Option<Fault>, status: StatusCode, body: Value) -> HttpResponse {
        match fault {
            Some(Fault::TimeoutBefore | Fault::TimeoutAfter) => self.hang().await,
            Some(Fault::ServerError | Fault::ServerErrorAfter) => server_error(),
            Some(Fault::TooManyRequests) => too_many(),
            Some(Fault::Reset) => broken_off(status, &body),
            Some(Fault::SlowBody) => dribbled(status, &body, self.hang),
            Some(Fault::WrongAmount) => json_response(status, &with_another_amount(body)),
            Some(Fault::DeclineThenPays) => json_response(status, &declined(body)),
            Some(Fault::InProgress | Fault::KeyReused | Fault::Decline) | None => {
                json_response(status, &body)
            }
        }
    }

    async fn hang(&self) -> HttpResponse {
        tokio::time::sleep(self.hang).await;
        problem(StatusCode::GATEWAY_TIMEOUT, "timeout")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // One request panicked; the ledger is still as its file is.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read<T: serde::de::DeserializeOwned>(request: Request<Incoming>) -> Option<T> {
    let body = Limited::new(request.into_body(), BODY_BYTES)
        .collect()
        .await
        .ok()?;
    serde_json::from_slice(&body.to_bytes()).ok()
}

/// The checks of a provider: decimal text above 0, a currency code, a reference of a plausible length.
fn is_payable(refund: &RefundRequest) -> bool {
    let amount: Option<f64> = refund.amount.parse().ok();
    amount.is_some_and(|amount| amount > 0.0 && amount.is_finite())
        && refund.currency.len() == 3
        && (1..=255).contains(&refund.reference.len())
}

fn reference(query: Option<&str>) -> Option<String> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query?).ok()?;
    pairs
        .into_iter()
        .find_map(|(name, value)| (name == "reference").then_some(value))
}

fn with_another_amount(mut body: Value) -> Value {
    let refund = match body.pointer_mut("/refunds/0") {
        Some(refund) => refund,
        None => &mut body,
    };
    if let Some(amount) = refund.get_mut("amount") {
        *amount = json!("0.0100");
    }
    body
}

/// The response of a refund that was not paid.
fn declined(mut body: Value) -> Value {
    body["status"] = json!(Status::Declined);
    body["code"] = json!(DECLINED_BECAUSE);
    body
}

/// Half of the response; then the connection breaks.
fn broken_off(status: StatusCode, body: &Value) -> HttpResponse {
    let text = body.to_string();
    let half = Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]);
    let frames = [
        Ok(Frame::data(half)),
        Err(io::Error::other("broken off on purpose")),
    ];
    started(
        status,
        text.len(),
        StreamBody::new(stream::iter(frames)).boxed_unsync(),
    )
}

/// Byte by byte, all of it within `within`.
fn dribbled(status: StatusCode, body: &Value, within: Duration) -> HttpResponse {
    let text = body.to_string().into_bytes();
    let length = text.len();
    let pause = within / u32::try_from(length).unwrap_or(u32::MAX);
    let frames = stream::unfold(text.into_iter(), move |mut left| async move {
        let byte = left.next()?;
        tokio::time::sleep(pause).await;
        Some((Ok(Frame::data(Bytes::copy_from_slice(&[byte]))), left))
    });
    started(status, length, StreamBody::new(frames).boxed_unsync())
}

fn started(
    status: StatusCode,
    length: usize,
    body: UnsyncBoxBody<Bytes, io::Error>,
) -> HttpResponse {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, "application/json".parse().expect("a value"));
    headers.insert(CONTENT_LENGTH, length.into());
    response
}

fn json_response(status: StatusCode, body: &Value) -> HttpResponse {
    let text = body.to_string();
    let length = text.len();
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {});
    started(status, length, body.boxed_unsync())
}

fn problem(status: StatusCode, code: &str) -> HttpResponse {
    json_response(status, &json!({ "error": code }))
}

fn server_error() -> HttpResponse {
    problem(StatusCode::INTERNAL_SERVER_ERROR, "server_error")
}

fn key_reused() -> HttpResponse {
    problem(StatusCode::UNPROCESSABLE_ENTITY, "key_reused")
}

fn too_many() -> HttpResponse {
    let mut response = problem(StatusCode::TOO_MANY_REQUESTS, "too_many_requests");
    response
        .headers_mut()
        .insert(RETRY_AFTER, PAUSE.parse().expect("a value"));
    response
}

fn empty(status: StatusCode) -> HttpResponse {
    let body = Full::new(Bytes::new()).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
}
