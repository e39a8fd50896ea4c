//! Invalid requests as bytes: each gets the right response, and nothing after an error gets a response.

mod cases;

use std::time::Instant;

use crate::harness::Api;
use crate::wire::{Wire, statuses};

/// Sent after each case, in the same write if possible. Only a server that continues to read after the case responds to
/// it, and it is always the last response.
const PROBE: &str = "GET /probe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn each_case_gets_its_responses_and_nothing_after_an_error_gets_one() {
    let api = Api::start_with(&["--api-body-timeout-secs", "1"]).await;
    let mut wrong = Vec::new();
    let token = api.customer_token();
    for case in cases::all(&token) {
        let bytes = [&case.bytes, PROBE.as_bytes()].concat();
        for in_pieces in [false, true] {
            // Long cases are not sent in pieces: they test the length.
            if in_pieces && bytes.len() > 2_000 {
                continue;
            }
            let begun = Instant::now();
            let mut wire = Wire::connect(api.address).await;
            if in_pieces {
                wire.send_byte_by_byte(&bytes).await;
            } else {
                wire.send(&bytes).await;
            }
            let answers = wire.until_closed().await;
            if statuses(&answers) != case.answers {
                let (name, expected) = (case.name, case.answers);
                wrong.push(format!(
                    "{name} (in pieces: {in_pieces}), not {expected:?}: {answers}"
                ));
            }
            assert!(
                begun.elapsed().as_secs() < 10,
                "{} waited for a timeout",
                case.name
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n---\n"));
    api.stop().await;
}
