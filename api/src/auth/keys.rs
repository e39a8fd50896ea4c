//! Reads the key file again when it changes, so that keys are added and retired without a restart.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shared::auth::{AuthArgs, KeyError, KeyProblem, KeyUse, Verifier};
use shared::runtime::tasks::every;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// A retired key is refused after this pause and the time to read the file.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct KeyWatch {
    args: AuthArgs,
    seen: Option<Signature>,
    /// The last failure, so that each is logged once.
    failure: Option<String>,
    keys: watch::Sender<Arc<Verifier>>,
    metrics: Arc<Metrics>,
}

/// What differs between two versions of a file: a rename over it changes the inode, a change in place the times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signature {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

pub(super) fn watch(
    verifier: Verifier,
    args: AuthArgs,
    metrics: Arc<Metrics>,
) -> (watch::Receiver<Arc<Verifier>>, KeyWatch) {
    show(&metrics, &verifier);
    metrics.auth.key_file_usable.set(1);
    let (keys, receiver) = watch::channel(Arc::new(verifier));
    let key_watch = KeyWatch {
        args,
        // Unknown, because the file may have changed since it was read. So it is read once more.
        seen: None,
        failure: None,
        keys,
        metrics,
    };
    (receiver, key_watch)
}

impl KeyWatch {
    /// Runs until `stop`. If the file cannot be read, the previous keys stay in force.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut turns = every(PAUSE, &stop);
        while turns.next().await {
            let (args, seen) = (self.args.clone(), self.seen);
            let reading = tokio::task::spawn_blocking(move || read_if_changed(&args, seen));
            match stop.run_until_cancelled(reading).await {
                None => return,
                Some(Ok((signature, read))) => {
                    self.seen = signature;
                    self.take(read);
                }
                Some(Err(error)) => tracing::error!(%error, "reading the keys panicked"),
            }
        }
    }

    fn take(&mut self, read: Option<Result<Verifier, KeyError>>) {
        let Some(read) = read else { return };
        let usable = i64::from(read.is_ok());
        let result = match read {
            Ok(verifier) => {
                let verifier = Arc::new(verifier);
                // Before the metrics: a test or an operator who reads the metrics may rely on the keys.
                self.keys.send_replace(Arc::clone(&verifier));
                show(&self.metrics, &verifier);
                if verifier.keys().is_empty() {
                    tracing::error!("the key file holds no key: every token is refused");
                } else {
                    tracing::info!(keys = ?verifier.keys(), "the keys that verify tokens were read");
                }
                self.failure = None;
                "read"
            }
            Err(error) => {
                let message = error.to_string();
                // An unreadable file is tried again every second.
                let again = self.failure.as_ref() == Some(&message);
                if again && matches!(error.problem, KeyProblem::Io(_)) {
                    return;
                }
                tracing::error!(%error, "the keys that verify tokens cannot be read; the previous keys stay in force");
                self.failure = Some(message);
                "failed"
            }
        };
        self.metrics.auth.key_file_usable.set(usable);
        self.metrics
            .auth
            .key_reloads
            .with_label_values(&[result])
            .inc();
    }
}

/// The signature of the file, and the keys in it if the file has changed.
fn read_if_changed(
    args: &AuthArgs,
    seen: Option<Signature>,
) -> (Option<Signature>, Option<Result<Verifier, KeyError>>) {
    // Before the read: a change in the meantime leads to another read.
    let signature = signature(&args.auth_keys_file);
    let read = (signature.is_none() || signature != seen).then(|| Verifier::load(args));
    let temporary = matches!(&read, Some(Err(error)) if matches!(error.problem, KeyProblem::Io(_)));
    // An unreadable file, for example while too many files are open, is read again.
    (signature.filter(|_| !temporary), read)
}

fn signature(path: &Path) -> Option<Signature> {
    let file = std::fs::metadata(path).ok()?;
    Some(Signature {
        inode: (file.dev(), file.ino()),
        size: file.size(),
        modified: (file.mtime(), file.mtime_nsec()),
        changed: (file.ctime(), file.ctime_nsec()),
    })
}

fn show(metrics: &Metrics, verifier: &Verifier) {
    for key_use in [KeyUse::Jwt, KeyUse::Biscuit] {
        let count = i64::try_from(verifier.keys().count(key_use)).unwrap_or(i64::MAX);
        metrics
            .auth
            .keys
            .with_label_values(&[key_use.as_str()])
            .set(count);
    }
}
