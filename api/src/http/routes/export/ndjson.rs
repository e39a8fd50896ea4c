//! One line of JSON per event, and a last line with their number and hash.

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};
use shared::domain::timestamp::timestamp_text;
use time::OffsetDateTime;

use crate::http::views::EventView;
use crate::store::EventRow;

/// The lines written so far.
#[derive(Debug)]
pub(super) struct Lines {
    before: OffsetDateTime,
    count: u64,
    sha256: Sha256,
}

#[derive(Debug, Serialize)]
struct LastLine {
    #[serde(rename = "_manifest")]
    manifest: Manifest,
}

/// Shows that an export is complete.
#[derive(Debug, Serialize)]
struct Manifest {
    count: u64,
    /// Of all previous lines with their line ends, in hexadecimal.
    sha256: String,
    /// The export has every event that was committed by now, is older than this, and passes the filters.
    created_before: String,
}

impl Lines {
    pub(super) fn new(before: OffsetDateTime) -> Self {
        Self {
            before,
            count: 0,
            sha256: Sha256::new(),
        }
    }

    pub(super) fn chunk(&mut self, rows: Vec<EventRow>, last: bool) -> Bytes {
        let mut out = Vec::new();
        for row in rows {
            self.count += 1;
            line(&mut out, &EventView::from(row));
        }
        self.sha256.update(&out);
        if last {
            line(&mut out, &self.last_line());
        }
        Bytes::from(out)
    }

    fn last_line(&self) -> LastLine {
        LastLine {
            manifest: Manifest {
                count: self.count,
                sha256: hex::encode(self.sha256.clone().finalize()),
                created_before: timestamp_text(self.before),
            },
        }
    }
}

fn line(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(&mut *out, value).expect("text and numbers, into memory");
    out.push(b'\n');
}
