//! Bytes that are no good requests: each is answered as it should be, and nothing behind an error is answered at all.

mod cases;

use std::time::Instant;

use crate::harness::Api;
use crate::wire::{Wire, statuses};

/// Sent behind each case, in the same write where that can be. Answered only by a server that goes on reading behind the
/// case, and the last that it answers in any case.
const PROBE: &str = "GET /probe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn each_is_answered_as_it_should_be_and_nothing_behind_an_error() {
    let api = Api::start_with(&["--api-body-timeout-secs", "1"]).await;
    let mut wrong = Vec::new();
    let token = api.customer_token();
    for case in cases::all(&token) {
        let bytes = [&case.bytes, PROBE.as_bytes()].concat();
        for in_pieces in [false, true] {
            // In pieces only what fits: the long ones are about length.
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
