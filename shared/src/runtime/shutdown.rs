//! SIGTERM and Ctrl-C, as one cancellation token. Only `main` installs it.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// When the first signal came.
static STOPPING_SINCE: OnceLock<Instant> = OnceLock::new();

/// How long ago the first signal came.
pub fn stopping_for() -> Option<Duration> {
    STOPPING_SINCE.get().map(Instant::elapsed)
}

/// A token that is cancelled at the first SIGTERM or SIGINT.
///
/// # Errors
/// The signal handlers cannot be installed.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = stop.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        STOPPING_SINCE.get_or_init(Instant::now);
        tracing::info!(signal = name, "stopping");
        token.cancel();
    });
    Ok(stop)
}
