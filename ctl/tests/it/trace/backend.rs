//! A server that gives one answer to every request.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The answer of Jaeger 2 to `GET /api/v3/traces/{id}`.
const RECORDED: &str = include_str!("jaeger.json");

#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    Recorded,
    Body(&'static str),
    NotFound,
    Failure,
    /// The connection stays open.
    Nothing,
    /// The head and the beginning of the body; the connection stays open.
    Half,
}

pub(super) struct Backend {
    pub(super) url: String,
    /// The first line of each.
    requests: Arc<Mutex<Vec<String>>>,
}

impl Backend {
    pub(super) fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&requests);
        // It ends with the test's process.
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let line = first_line(&stream);
                kept.lock().expect("not poisoned").push(line);
                respond(&mut stream, answer);
                if matches!(answer, Answer::Nothing | Answer::Half) {
                    open.push(stream);
                }
            }
        });
        Self {
            url: format!("http://{address}"),
            requests,
        }
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("not poisoned").clone()
    }
}

fn first_line(stream: &TcpStream) -> String {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    // To the end of the head; the request has no body.
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    first
}

fn respond(stream: &mut TcpStream, answer: Answer) {
    let (status, body) = match answer {
        Answer::Recorded | Answer::Half => ("200 OK", RECORDED),
        Answer::Body(body) => ("200 OK", body),
        Answer::NotFound => (
            "404 Not Found",
            r#"{"error":{"httpCode":404,"message":"No traces found"}}"#,
        ),
        Answer::Failure => ("500 Internal Server Error", ""),
        Answer::Nothing => return,
    };
    let sent = match answer {
        Answer::Half => &body[..body.len() / 2],
        _ => body,
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    // The client may have given up.
    let _ = stream.write_all(format!("{head}{sent}").as_bytes());
}
