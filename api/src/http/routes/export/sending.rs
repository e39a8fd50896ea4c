//! Sends an export to its client, and cuts it when it must not go on.
//!
//! Must stay true: whether the client reads does not matter for when an export is cut. So a task of its own checks the
//! permission, waits for the stop of the api, and measures how fast the client reads; hyper would ask the body for more
//! only when the client has read what came before.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use shared::runtime::db::DbError;
use shared::runtime::http_server::Connection;
use shared::runtime::tasks::chain;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::Export;
use crate::audit::ExportLimits;
use crate::auth::Grant;
use crate::quota::QuotaPermit;

/// How often the permission is checked. A retired key and a revoked token are known to the api within the same time.
const PERMISSION_CHECK: Duration = Duration::from_secs(1);

/// Bytes a second. A client that reads more slowly would keep others from their exports for hours; half a megabit is
/// less than a bad mobile connection has.
const MIN_RATE: f64 = 64.0 * 1024.0;

/// The client's rate is measured in pieces of this size.
const PIECE: usize = 32 * 1024;

/// Everything that an export in progress holds, apart from its events.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) limits: ExportLimits,
    pub(super) grant: Grant,
    pub(super) connection: Connection,
    pub(super) _permit: QuotaPermit,
}

/// Why an export is cut.
#[derive(Debug, thiserror::Error)]
enum Cut {
    #[error("the api stops")]
    Stopping,
    #[error("the token, or its key, is no longer accepted, or this is not known")]
    NotAllowed,
    #[error("the client reads too slowly")]
    TooSlow,
    #[error("the events cannot be read")]
    Database(#[source] DbError),
}

/// A part of the body.
#[derive(Debug)]
enum Part {
    Piece(Bytes),
    /// Without it the export is incomplete.
    End,
}

/// Ends the body and the connection: the client must not take an incomplete export for a complete one.
#[derive(Debug, thiserror::Error)]
#[error("the export was cut")]
pub(super) struct Incomplete;

impl Sending {
    /// Starts to send; returns the body of the response.
    pub(super) fn start(
        self,
        export: Export,
    ) -> impl Stream<Item = Result<Bytes, Incomplete>> + use<> {
        let (out, parts) = mpsc::channel(1);
        tokio::spawn(self.run(export, out));
        body(parts)
    }

    async fn run(self, export: Export, out: mpsc::Sender<Part>) {
        let cut = tokio::select! {
            // In this order: what can be sent at once is sent, also while the api stops.
            biased;
            sent = send(export, &out, self.limits.pauses) => match sent {
                Ok(()) => return,
                Err(cut) => cut,
            },
            () = out.closed() => return,
            () = self.limits.stop.cancelled() => Cut::Stopping,
            () = not_allowed(&self.grant) => Cut::NotAllowed,
        };
        tracing::warn!(reason = chain(&cut), "an export was cut");
        self.connection.abort();
    }
}

/// Resolves when the token is no longer accepted.
async fn not_allowed(grant: &Grant) {
    while grant.holds() {
        sleep(PERMISSION_CHECK).await;
    }
}

async fn send(mut export: Export, out: &mpsc::Sender<Part>, pauses: Duration) -> Result<(), Cut> {
    let mut pace = Pace::new(pauses);
    while let Some(mut chunk) = export.next().await.map_err(Cut::Database)? {
        while !chunk.is_empty() {
            let piece = chunk.split_to(chunk.len().min(PIECE));
            pace.send(out, Part::Piece(piece)).await?;
        }
    }
    pace.send(out, Part::End).await
}

/// How fast the client reads. The time that MySQL takes is not the client's.
#[derive(Debug)]
struct Pace {
    pauses: Duration,
    waited: Duration,
    sent: usize,
}

impl Pace {
    fn new(pauses: Duration) -> Self {
        Self {
            pauses,
            waited: Duration::ZERO,
            sent: 0,
        }
    }

    async fn send(&mut self, out: &mpsc::Sender<Part>, part: Part) -> Result<(), Cut> {
        let begun = Instant::now();
        let place = timeout(self.left(), out.reserve()).await;
        self.waited += begun.elapsed();
        match place {
            Ok(Ok(place)) => {
                if let Part::Piece(piece) = &part {
                    self.sent += piece.len();
                }
                place.send(part);
                Ok(())
            }
            // The client has disconnected; `out.closed()` ends the export.
            Ok(Err(_)) => Ok(()),
            Err(_) => Err(Cut::TooSlow),
        }
    }

    /// How long the client may still wait before it reads the next piece.
    fn left(&self) -> Duration {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a duration needs no exact number of bytes"
        )]
        let at_min_rate = Duration::from_secs_f64(self.sent as f64 / MIN_RATE);
        (self.pauses + at_min_rate).saturating_sub(self.waited)
    }
}

fn body(parts: mpsc::Receiver<Part>) -> impl Stream<Item = Result<Bytes, Incomplete>> {
    stream::unfold(Some(parts), |parts| async {
        let mut parts = parts?;
        match parts.recv().await {
            Some(Part::Piece(piece)) => Some((Ok(piece), Some(parts))),
            Some(Part::End) => None,
            None => Some((Err(Incomplete), None)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSES: Duration = Duration::from_secs(30);

    /// Sends this many pieces to a client that takes one in `every` after `first`. The pieces sent, and the time.
    async fn sent_to(pieces: u32, first: Duration, every: Duration) -> (u32, Duration) {
        let (out, mut parts) = mpsc::channel(1);
        let begun = Instant::now();
        let client = tokio::spawn(async move {
            sleep(first).await;
            while parts.recv().await.is_some() {
                sleep(every).await;
            }
        });
        let mut pace = Pace::new(PAUSES);
        let mut sent = 0;
        while sent < pieces {
            let piece = Part::Piece(Bytes::from_static(&[0; PIECE]));
            if pace.send(&out, piece).await.is_err() {
                break;
            }
            sent += 1;
        }
        let lasted = begun.elapsed();
        client.abort();
        (sent, lasted)
    }

    #[tokio::test(start_paused = true)]
    async fn p12_a_client_that_reads_too_slowly_is_cut() {
        // Half of the minimum rate: each second uses up half a second of the pauses.
        let (sent, lasted) = sent_to(10_000, Duration::ZERO, Duration::from_secs(1)).await;
        assert!((60..65).contains(&lasted.as_secs()), "{lasted:?}");
        assert!((60..65).contains(&sent), "{sent}");
        let (sent, lasted) = sent_to(10_000, Duration::from_secs(3_600), Duration::ZERO).await;
        assert_eq!((sent, lasted.as_secs()), (1, 30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_may_read_at_the_minimum_rate_for_ever_and_may_pause() {
        let every = Duration::from_millis(500);
        let (sent, lasted) = sent_to(10_000, Duration::from_secs(29), every).await;
        assert_eq!(sent, 10_000);
        assert!(lasted > Duration::from_secs(4_900), "{lasted:?}");
    }
}
