//! Attacks by tokens. Code builds each one here; the right check refuses it, cheaply.
//!
//! Most are known from other systems. Tokens that join, nest or repeat take seconds to minutes of one core if blocks
//! of holders are evaluated unchecked, with any limits of the engine.

mod biscuits;
mod hybrids;
mod jwts;

use std::time::Duration;

use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use shared::auth::{AuthArgs, Operation, Policy, Request, Verifier};
use shared::domain::ids::ReturnId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Answer, Api, CUSTOMER};
use crate::tokens::{Format, Issuer, Keys};

/// CPU time of one thread, independent of the load of the machine.
pub(crate) const CPU_MAX: Duration = Duration::from_millis(1);

/// The means of an attacker: a valid token of each format, and the public keys.
struct Attacker<'k> {
    issuer: &'k Issuer,
    jwt: String,
    biscuit: String,
}

/// A name, the token, and the check that refuses it, as `auth_refusals_total` calls it.
type Attack = (String, String, &'static str);

fn named(name: impl Into<String>, token: impl Into<String>, check: &'static str) -> Attack {
    (name.into(), token.into(), check)
}

fn claims() -> Value {
    json!({"user_id": CUSTOMER.0, "role": "customer"})
}

/// Every attack on the keys of [`keys_of_all_kinds`].
pub(crate) fn attacks(issuer: &Issuer) -> Vec<Attack> {
    let attacker = Attacker {
        issuer,
        jwt: issuer.mint_as(Format::Jwt, claims()),
        biscuit: issuer.mint_as(Format::Biscuit, claims()),
    };
    [attacker.jwts(), attacker.hybrids(), attacker.biscuits()].concat()
}

/// One of each kind that the file may contain, except a shared secret, which only the issuer knows.
pub(crate) fn keys_of_all_kinds() -> Keys {
    let keys = Keys::generate();
    let [ours, root] = keys.issuer().public_keys();
    let [_, second_root] = Issuer::new(2).public_keys();
    let rsa = json!({"kty": "RSA", "use": "sig", "kid": "rsa", "e": "AQAB", "n": jwts::RSA_N});
    let [x, y] = jwts::P256;
    let ec = json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": "ec", "x": x, "y": y});
    keys.write_text(&json!({"keys": [ours, root, second_root, rsa, ec]}).to_string());
    keys
}

/// The token checks of the api, without the api.
pub(crate) struct Judge {
    pub(crate) verifier: Verifier,
    pub(crate) policy: Policy,
}

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    auth: AuthArgs,
}

impl Judge {
    pub(crate) fn new(keys: &Keys) -> Self {
        let path = keys.path();
        let path = path.to_str().expect("a UTF-8 path");
        let args = Settings::parse_from(["test", "--auth-keys-file", path]).auth;
        Self {
            verifier: Verifier::load(&args).expect("keys"),
            policy: Policy::new(&args),
        }
    }

    /// Whether the token may read the customer's return, or which check refuses it.
    pub(crate) fn read(&self, token: &str) -> Result<(), &'static str> {
        let about = Request::about(Operation::ReturnsRead, ReturnId(1), Some(CUSTOMER));
        self.allows(token, &about)
    }

    pub(crate) fn allows(&self, token: &str, request: &Request) -> Result<(), &'static str> {
        let verified = self
            .verifier
            .verify(token)
            .map_err(|refused| refused.code())?;
        let decided = self.policy.decide(&verified, request);
        decided.map(|_| ()).map_err(|denied| denied.code())
    }
}

/// The CPU time of this thread. The minimum of nine runs: disturbances only add time.
pub(crate) fn cpu_time<T>(run: impl Fn() -> T) -> Duration {
    cpu_time_on(|| (), |_| run())
}

/// As [`cpu_time`], with a new input for each run, because the input caches results. Making it is not counted.
pub(crate) fn cpu_time_on<S, T>(make: impl Fn() -> S, run: impl Fn(&S) -> T) -> Duration {
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("a time");
    let runs = (0..9).map(|_| {
        let made = make();
        let before = now();
        std::hint::black_box(run(&made));
        now() - before
    });
    runs.min().expect("nine")
}

#[test]
fn p13_each_attack_is_refused_by_its_check_within_a_millisecond_of_cpu() {
    let keys = keys_of_all_kinds();
    let judge = Judge::new(&keys);
    for format in Format::ALL {
        let token = keys.mint_as(format, claims());
        assert_eq!(
            judge.read(&token),
            Ok(()),
            "a valid token is accepted: {format:?}"
        );
    }
    let attacks = attacks(keys.issuer());
    let mut wrong = Vec::new();
    let mut dearest = (Duration::ZERO, "");
    for (name, token, check) in &attacks {
        let said = judge.read(token);
        if said != Err(*check) {
            wrong.push(format!("{name}: {said:?}, not {check}"));
        }
        let took = cpu_time(|| judge.read(token));
        if took >= CPU_MAX {
            wrong.push(format!("{name}: {took:?}"));
        }
        dearest = dearest.max((took, name));
    }
    assert_eq!(wrong, [""; 0]);
    eprintln!("{} attacks; the dearest: {dearest:?}", attacks.len());
}

#[tokio::test]
async fn p13_each_attack_gets_the_same_401() {
    let db = shared::test_support::TestDb::create().await;
    let url = db.url().to_owned();
    let api = Api::start_with_keys(db, &url, &[], keys_of_all_kinds()).await;
    let mut bodies = std::collections::BTreeSet::new();
    for (name, token, _) in attacks(api.keys.issuer()) {
        let request = api
            .http
            .get(api.url("/returns/1"))
            .header("authorization", format!("Bearer {token}"));
        let answer = Answer::read(request.send().await.expect("a response")).await;
        assert_eq!(answer.status, 401, "{name}");
        let mut problem = answer.problem(401, "unauthenticated");
        for id in ["request_id", "trace_id", "span_id"] {
            problem[id] = Value::Null;
        }
        let challenge = answer.header("www-authenticate").map(str::to_owned);
        bodies.insert(format!("{problem} {challenge:?}"));
    }
    assert_eq!(
        bodies.len(),
        1,
        "strangers learn which check it was: {bodies:?}"
    );
    api.stop().await;
}

#[tokio::test]
async fn p13_a_token_is_one_header_and_nothing_else() {
    let api = Api::start().await;
    for format in Format::ALL {
        let token = api.token_of(format, 7, "admin");
        let get = |path: &str| api.http.get(api.url(path));
        let with = |values: &[&str]| {
            values.iter().fold(get("/returns"), |request, value| {
                request.header("authorization", *value)
            })
        };
        let good = format!("Bearer {token}");
        assert_eq!(
            with(&[&good]).send().await.expect("a response").status(),
            200
        );
        for (what, request, with_token) in [
            ("the same twice", with(&[&good, &good]), true),
            ("a bad one first", with(&["Bearer x", &good]), true),
            ("a bad one after", with(&[&good, "Basic eDp5"]), true),
            ("in one line", with(&[&format!("{good}, {good}")]), true),
            ("another scheme", with(&[&format!("Token {token}")]), true),
            ("no scheme", with(&[&token]), true),
            ("basic", with(&[&format!("Basic {token}")]), true),
            (
                "in the query",
                get(&format!("/returns?access_token={token}")),
                false,
            ),
            (
                "in the query as token",
                get(&format!("/returns?token={token}")),
                false,
            ),
            (
                "in a cookie",
                get("/returns").header("cookie", format!("token={token}")),
                false,
            ),
            (
                "in another header",
                get("/returns").header("x-authorization", &good),
                false,
            ),
            (
                "of a proxy",
                get("/returns").header("proxy-authorization", &good),
                false,
            ),
        ] {
            let answer = Answer::read(request.send().await.expect("a response")).await;
            assert_eq!(answer.status, 401, "{format:?} {what}");
            answer.problem(401, "unauthenticated");
            let invalid = answer
                .header("www-authenticate")
                .is_some_and(|text| text.contains("invalid_token"));
            assert_eq!(invalid, with_token, "{format:?} {what}");
        }
    }
    api.stop().await;
}

/// Headers that client libraries refuse to send. The server's buffer for headers is below 64 KiB; hyper responds itself.
#[tokio::test]
async fn p13_a_header_of_64_kib_or_of_strange_bytes_is_refused() {
    let api = Api::start().await;
    let good = api.token_of(Format::Jwt, 7, "admin");
    let bearer = |token: &str| format!("Authorization: Bearer {token}").into_bytes();
    let kib = |count: usize, text: &str| text.repeat(count * 1024);
    for (what, header, status) in [
        ("64 KiB", bearer(&kib(64, "A")), 431),
        ("64 KiB of dots", bearer(&kib(64, ".")), 431),
        ("64 KiB of spaces", bearer(&(kib(64, " ") + &good)), 431),
        ("16 KiB", bearer(&kib(16, "A")), 401),
        ("16 KiB of dots", bearer(&kib(16, ".")), 401),
        (
            "two lines",
            [bearer(&good), b"\r\n".to_vec(), bearer(&good)].concat(),
            401,
        ),
        (
            "bytes above ASCII",
            b"Authorization: Bearer \xff\xfe\xfd".to_vec(),
            401,
        ),
        (
            "a tab",
            format!("Authorization: Bearer\t{good}").into_bytes(),
            401,
        ),
        ("nothing", b"Authorization:".to_vec(), 401),
        ("as it should be", bearer(&good), 200),
    ] {
        let answer = raw_answer(&api, &header).await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{what}: {answer}");
        let problem = answer.contains("/problems/unauthenticated");
        assert_eq!(problem, status == 401, "{what}: {answer}");
    }
    api.stop().await;
}

async fn raw_answer(api: &Api, header: &[u8]) -> String {
    let mut stream = TcpStream::connect(api.address).await.expect("connect");
    let head = b"GET /returns HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let request = [&head[..], header, b"\r\n\r\n"].concat();
    let (mut reader, mut writer) = stream.split();
    // The server may close early: the rest cannot be sent, but the response can still be read.
    let (_, answer) = tokio::join!(writer.write_all(&request), async {
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = reader.read(&mut chunk).await {
            answer.extend_from_slice(&chunk[..length]);
        }
        answer
    });
    String::from_utf8_lossy(&answer).into_owned()
}
