//! The bytes of each case, and the expected responses.

/// The response to the probe on a connection that stays open.
const KEPT: u16 = 404;

pub(super) fn all(token: &str) -> Vec<Case> {
    [lengths(), lines(), targets(), chunks(token)].concat()
}

/// The request that a successful smuggling attack would send: 401, because it has no token.
const SMUGGLED: &str = "GET /returns HTTP/1.1\r\nHost: x\r\n\r\n";

#[derive(Clone)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
    /// The status of each response; the probe's is [`KEPT`].
    pub(super) answers: &'static [u16],
}

fn case(name: &'static str, bytes: impl Into<Vec<u8>>, answers: &'static [u16]) -> Case {
    Case {
        name,
        bytes: bytes.into(),
        answers,
    }
}

/// `GET /returns/1` with these header lines after `Host`.
fn get(headers: &str) -> String {
    format!("GET /returns/1 HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
}

fn post(headers: &str, body: &str) -> String {
    format!("POST /returns HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}")
}

fn line(request_line: &str) -> String {
    format!("{request_line}\r\nHost: x\r\n\r\n")
}

/// Where a request ends.
fn lengths() -> Vec<Case> {
    let chunked = format!("0\r\n\r\n{SMUGGLED}");
    let both = |first: &str, second: &str| post(&format!("{first}\r\n{second}\r\n"), &chunked);
    let length = |value: &str| post(&format!("Content-Length: {value}\r\n"), "12345");
    vec![
        case(
            "content-length, then chunked",
            both("Content-Length: 41", "Transfer-Encoding: chunked"),
            &[400],
        ),
        case(
            "chunked, then content-length",
            both("Transfer-Encoding: chunked", "Content-Length: 41"),
            &[400],
        ),
        case(
            "content-length and another coding",
            both("Content-Length: 41", "Transfer-Encoding: identity"),
            &[400],
        ),
        case(
            "the same, spelt otherwise",
            both("CONTENT-LENGTH:41", "transfer-encoding:\tCHUNKED"),
            &[400],
        ),
        case(
            "xchunked",
            post("Transfer-Encoding: xchunked\r\n", &chunked),
            &[400],
        ),
        case(
            "identity",
            post("Transfer-Encoding: identity\r\n", &chunked),
            &[400],
        ),
        case(
            "chunked is not the last",
            post("Transfer-Encoding: chunked, gzip\r\n", &chunked),
            &[400],
        ),
        case(
            "gzip, then chunked",
            post("Transfer-Encoding: gzip, chunked\r\n", &chunked),
            &[400],
        ),
        case(
            "chunked twice",
            post("Transfer-Encoding: chunked, chunked\r\n", &chunked),
            &[400],
        ),
        case(
            "chunked in two lines",
            both("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
            &[400],
        ),
        case(
            "chunked and cow",
            both("Transfer-Encoding: chunked", "Transfer-Encoding: cow"),
            &[400],
        ),
        case(
            "chunked, quoted",
            post("Transfer-Encoding: \"chunked\"\r\n", &chunked),
            &[400],
        ),
        case(
            "chunked behind a vertical tab",
            post("Transfer-Encoding: \x0bchunked\r\n", &chunked),
            &[400],
        ),
        // Only one request with chunks per connection: bytes after it are not the next request.
        case(
            "chunked",
            post("Transfer-Encoding: chunked\r\n", &chunked),
            &[401],
        ),
        case(
            "two equal lengths",
            both("Content-Length: 5", "Content-Length: 5"),
            &[400],
        ),
        case(
            "two lengths",
            both("Content-Length: 5", "Content-Length: 6"),
            &[400],
        ),
        case("a list of lengths", length("5, 5"), &[400]),
        case("a length with a sign", length("+5"), &[400]),
        case("a negative length", length("-5"), &[400]),
        case("a hexadecimal length", length("0x5"), &[400]),
        case("no length", length(""), &[400]),
        case("a length with a gap", length("5 5"), &[400]),
        case(
            "a length of 21 digits",
            length("100000000000000000000"),
            &[400],
        ),
        case(
            "a padded length",
            length(&format!("{}5", " ".repeat(80))),
            &[400],
        ),
        case(
            "an unexpected body",
            get("Content-Length: 5\r\n") + "12345",
            &[401],
        ),
        case(
            "a body of nothing",
            get("Content-Length: 0\r\n"),
            &[401, KEPT],
        ),
    ]
}

/// Lines and names.
fn lines() -> Vec<Case> {
    vec![
        case("a plain request", get(""), &[401, KEPT]),
        case("two plain requests", get("") + &get(""), &[401, 401, KEPT]),
        case(
            "empty lines before",
            "\r\n\r\n".to_owned() + &get(""),
            &[401, KEPT],
        ),
        case("line feeds alone", get("").replace('\r', ""), &[400]),
        case("one line feed alone", get("A: b\n"), &[400]),
        case(
            "a line feed alone ends the head",
            "GET /returns/1 HTTP/1.1\r\nHost: x\r\n\n",
            &[400],
        ),
        case("a carriage return alone", get("A: b\rC: d\r\n"), &[400]),
        case("a folded line", get("A: b\r\n c\r\n"), &[400]),
        case(
            "a folded length",
            post("Content-Length:\r\n 5\r\n", "12345"),
            &[400],
        ),
        case("a space before the colon", get("A : b\r\n"), &[400]),
        case(
            "a tab before the colon",
            post("Content-Length\t: 5\r\n", "12345"),
            &[400],
        ),
        case(
            "a space before the first name",
            "GET /returns/1 HTTP/1.1\r\n Host: x\r\n\r\n",
            &[400],
        ),
        case("no name", get(": b\r\n"), &[400]),
        case("no colon", get("a\r\n"), &[400]),
        case("a name with a slash", get("a/b: c\r\n"), &[400]),
        case("NUL in a value", get("A: b\0c\r\n"), &[400]),
        case("NUL in a name", get("A\0: b\r\n"), &[400]),
        case(
            "a control character in a value",
            get("A: b\x07c\r\n"),
            &[400],
        ),
        case("DEL in a value", get("A: b\x7fc\r\n"), &[400]),
        case("64 headers", get(&"A: b\r\n".repeat(63)), &[401, KEPT]),
        case("65 headers", get(&"A: b\r\n".repeat(64)), &[431]),
        case(
            "a header of 64 KiB",
            get(&format!("A: {}\r\n", "b".repeat(64 * 1024))),
            &[431],
        ),
        case(
            "headers without end",
            format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(20_000)),
            &[431],
        ),
        case("a name without end", "G".repeat(64 * 1024), &[431]),
        case(
            "TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".as_slice(),
            &[400],
        ),
        case("zeros", [0_u8; 64].as_slice(), &[400]),
    ]
}

/// Request lines and hosts.
fn targets() -> Vec<Case> {
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &[0; 2_000]].concat();
    let host = |lines: &str| format!("GET /returns/1 HTTP/1.1\r\n{lines}\r\n");
    vec![
        case("no host", host(""), &[400]),
        case("two hosts", host("Host: x\r\nHost: x\r\n"), &[400]),
        case("two hosts in one", host("Host: x, y\r\n"), &[400]),
        case("an empty host", host("Host:\r\n"), &[400]),
        case("a host with a path", host("Host: x/y\r\n"), &[400]),
        case("a host with a user", host("Host: y@x\r\n"), &[400]),
        case(
            "absolute-form",
            line("GET http://x/returns/1 HTTP/1.1"),
            &[401, KEPT],
        ),
        case(
            "absolute-form for another host",
            line("GET http://y/returns/1 HTTP/1.1"),
            &[400],
        ),
        case("authority-form", line("GET x:80 HTTP/1.1"), &[400]),
        case("asterisk-form", line("OPTIONS * HTTP/1.1"), &[400]),
        case("a relative target", line("GET returns/1 HTTP/1.1"), &[400]),
        case("CONNECT", line("CONNECT x:80 HTTP/1.1"), &[405]),
        case(
            "CONNECT with a path",
            line("CONNECT /returns HTTP/1.1"),
            &[405],
        ),
        case("TRACE", line("TRACE /returns HTTP/1.1"), &[405]),
        case(
            "a small method",
            line("get /returns/1 HTTP/1.1"),
            &[405, KEPT],
        ),
        case(
            "an unknown method",
            line("FROB /returns/1 HTTP/1.1"),
            &[405, KEPT],
        ),
        case(
            "a method with an angle",
            line("G<T /returns/1 HTTP/1.1"),
            &[400],
        ),
        case("two spaces", line("GET  /returns/1 HTTP/1.1"), &[400]),
        case("a tab", line("GET\t/returns/1 HTTP/1.1"), &[400]),
        case("no target", line("GET HTTP/1.1"), &[400]),
        case(
            "a space in the target",
            line("GET /returns/ 1 HTTP/1.1"),
            &[400],
        ),
        case("HTTP/0.9", "GET /returns/1\r\n\r\n", &[400]),
        case("HTTP/1.0", line("GET /returns/1 HTTP/1.0"), &[505]),
        case(
            "HTTP/1.0 that wants to stay",
            "GET /returns/1 HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
            &[505],
        ),
        case("HTTP/1.2", line("GET /returns/1 HTTP/1.2"), &[400]),
        case("HTTP/2.0", line("GET /returns/1 HTTP/2.0"), &[400]),
        // Too long to be sent in pieces: then the version arrives alone and gets 400.
        case("the preface of HTTP/2", preface, &[]),
        case(
            "an upgrade to HTTP/2",
            get("Connection: upgrade\r\nUpgrade: h2c\r\n"),
            &[401, KEPT],
        ),
        case(
            "a target of 9 KiB",
            line(&format!("GET /{} HTTP/1.1", "x".repeat(9 * 1024))),
            &[414],
        ),
        case(
            "a target of 70 KiB",
            line(&format!("GET /{} HTTP/1.1", "x".repeat(70 * 1024))),
            &[431],
        ),
        case(
            "%00 in the path",
            line("GET /returns/%00 HTTP/1.1"),
            &[401, KEPT],
        ),
        case(
            "dots in the path",
            line("GET /returns/../metrics HTTP/1.1"),
            &[404, KEPT],
        ),
        case("NUL in the path", line("GET /returns/\0 HTTP/1.1"), &[400]),
        case(
            "a control character in the path",
            line("GET /returns/\x01 HTTP/1.1"),
            &[400],
        ),
        case(
            "a fragment",
            line("GET /returns/1#top HTTP/1.1"),
            &[401, KEPT],
        ),
        case(
            "two tokens",
            get("Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"),
            &[401, KEPT],
        ),
        case(
            "an unknown expectation",
            get("Expect: a-miracle\r\n"),
            &[401, KEPT],
        ),
    ]
}

/// Chunks are read only from callers who may file: with this token.
fn chunks(token: &str) -> Vec<Case> {
    let headers = format!(
        "Authorization: Bearer {token}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    );
    let chunked = |body: &str| post(&headers, body);
    vec![
        // The body is read and is not a JSON object: 422, and nothing more on this connection.
        case("good chunks", chunked("2\r\n[]\r\n0\r\n\r\n"), &[422]),
        case(
            "a good extension",
            chunked("2;a=b\r\n[]\r\n0\r\n\r\n"),
            &[422],
        ),
        case(
            "a huge chunk",
            chunked("FFFFFFFFFFFFFFFFF\r\n[]\r\n0\r\n\r\n"),
            &[400],
        ),
        case(
            "a chunk of 2^64 - 1",
            chunked("FFFFFFFFFFFFFFFF\r\n[]\r\n"),
            &[408],
        ),
        case("a negative chunk", chunked("-2\r\n[]\r\n0\r\n\r\n"), &[400]),
        case("a chunk with 0x", chunked("0x2\r\n[]\r\n0\r\n\r\n"), &[400]),
        case("a chunk of no size", chunked("\r\n[]\r\n0\r\n\r\n"), &[400]),
        case(
            "a chunk that is longer than it says",
            chunked("1\r\n[]\r\n0\r\n\r\n"),
            &[400],
        ),
        case(
            "a line feed in an extension",
            chunked("2;a\n[]\r\n0\r\n\r\n"),
            &[400],
        ),
        case(
            "an extension of 32 KiB",
            chunked(&format!("2;{}\r\n[]\r\n0\r\n\r\n", "a".repeat(32 * 1024))),
            &[400],
        ),
        case(
            "chunks that end in line feeds",
            chunked("2\n[]\n0\n\n"),
            &[400],
        ),
    ]
}
