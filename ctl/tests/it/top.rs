//! `top` as a script uses it; the view itself is tested beside its code.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use crate::harness::expect_code;
use crate::status::Fixture;

const RULES: &str = r#"{"status":"success","data":{"groups":[{"rules":[
    {"name":"OutboxRowsParked","state":"firing","labels":{"severity":"ticket"},"alerts":[{}]},
    {"name":"ReturnsApiGone","state":"inactive","labels":{"severity":"page"},"alerts":[]}]}]}}"#;

/// Answers as an api whose counter rises by 20 with each request, and as a Prometheus; until the test ends.
fn api_and_prometheus() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    std::thread::spawn(move || {
        let mut filed = 0;
        for stream in listener.incoming() {
            let mut stream = stream.expect("a caller");
            let body = if requested(&stream).contains("/metrics") {
                filed += 20;
                format!(
                    "filing_outcomes_total{{outcome=\"filed\"}} {filed}\n\
                     filing_outcomes_total{{outcome=\"busy\"}} {}\n",
                    filed / 20
                )
            } else {
                RULES.to_owned()
            };
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
            )
            .expect("an answer");
        }
    });
    address
}

/// The first line of a request, which is read to its end.
fn requested(stream: &TcpStream) -> String {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().expect("a line").expect("UTF-8");
    lines
        .map(|line| line.expect("UTF-8"))
        .find(String::is_empty)
        .expect("the end of the headers");
    first
}

#[tokio::test]
async fn one_frame_is_printed_without_a_terminal_with_rates_errors_and_alerts() {
    let fixture = Fixture::new().await;
    fixture.lease_shards().await;
    let address = api_and_prometheus();
    let url = format!("http://{address}");
    let variables = [
        ("OPS_ADDRESSES", address.as_str()),
        ("PROMETHEUS_URL", &url),
    ];
    let ran = fixture.run(&["top", "--once", "--interval", "1"], &variables);
    assert_eq!(ran.code, 0, "{ran:?}");
    for part in [
        "published -   claimed -   refunded -",
        ": filing_outcomes_total busy",
        "FIRING    OutboxRowsParked ticket",
        "inactive  ReturnsApiGone page",
        "[1] relay-a  [2] relay-b",
        "outbox    0 rows waiting; 0 parked",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    assert!(!ran.stdout.contains("filed -"), "{}", ran.stdout);
    assert!(!ran.stdout.contains('\u{1b}'), "{}", ran.stdout);
    let wide = ran.stdout.lines().find(|line| line.chars().count() > 80);
    assert_eq!(wide, None, "{}", ran.stdout);
}

#[tokio::test]
async fn the_data_is_one_json_document() {
    let fixture = Fixture::new().await;
    fixture.lease_shards().await;
    let address = api_and_prometheus();
    let ran = fixture.run(
        &["top", "--json", "--interval", "1", "--ops", &address],
        &[],
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    let json = ran.json();
    let filed = json["rates"]["filed_per_sec"].as_f64().expect("a rate");
    assert!(filed > 0.0 && filed <= 20.0, "{filed}");
    assert_eq!(
        json["programs"][0]["metrics"]["value"]["program"],
        "returns-api"
    );
    assert_eq!(json["errors"][0]["series"], "filing_outcomes_total busy");
}

#[test]
fn without_a_terminal_the_live_view_names_its_alternatives() {
    let variables = [
        ("DATABASE_URL", "mysql://u@127.0.0.1:1/d"),
        ("KAFKA_BROKERS", "127.0.0.1:1"),
        ("NO_COLOR", "1"),
    ];
    let ran = expect_code(1, &["top"], &variables);
    assert!(
        ran.stderr.contains("To do: use --once or --json"),
        "{}",
        ran.stderr
    );
}
