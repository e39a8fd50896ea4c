//! Reads the key file again when it changes, so that a key is added or retired without a restart.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shared::auth::{AuthArgs, KeyError, KeyProblem, KeyUse, Verifier};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// A retired key is refused after this and the time to read the file.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct KeyWatch {
    args: AuthArgs,
    seen: Option<Signature>,
    /// What was said last, so that it is said once.
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
    let (keys, receiver) = watch::channel(Arc::new(verifier));
    let key_watch = KeyWatch {
        args,
        // Unknown: it may have changed since it was read, so it is read once more.
        seen: None,
        failure: None,
        keys,
        metrics,
    };
    (receiver, key_watch)
}

impl KeyWatch {
    /// Until `closing`. Keys that cannot be read leave those of before in force.
    pub(crate) async fn run(mut self, closing: CancellationToken) {
        loop {
            let (args, seen) = (self.args.clone(), self.seen);
            let looking = tokio::task::spawn_blocking(move || look(&args, seen));
            match closing.run_until_cancelled(looking).await {
                None => return,
                Some(Ok((signature, read))) => {
                    self.seen = signature;
                    self.take(read);
                }
                Some(Err(error)) => tracing::error!(%error, "reading the keys panicked"),
            }
            let pause = tokio::time::sleep(PAUSE);
            if closing.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    fn take(&mut self, read: Option<Result<Verifier, KeyError>>) {
        let result = match read {
            None => return,
            Some(Ok(verifier)) => {
                let verifier = Arc::new(verifier);
                // First: whoever reads the metrics may rely on the keys.
                self.keys.send_replace(Arc::clone(&verifier));
                show(&self.metrics, &verifier);
                if verifier.keys().is_empty() {
                    tracing::error!("no key verifies tokens any more: nobody is let in");
                } else {
                    tracing::info!(keys = ?verifier.keys(), "the keys that verify tokens were read");
                }
                self.failure = None;
                "read"
            }
            Some(Err(error)) => {
                let told = error.to_string();
                // One that cannot even be read is looked at every second.
                let again = self.failure.as_ref() == Some(&told);
                if again && matches!(error.problem, KeyProblem::Io(_)) {
                    return;
                }
                tracing::error!(%error, "the keys that verify tokens cannot be read; those of before stay in force");
                self.failure = Some(told);
                "failed"
            }
        };
        self.metrics
            .auth
            .key_reloads
            .with_label_values(&[result])
            .inc();
    }
}

/// The file as it is now, and what it holds if it is not the one of before.
fn look(
    args: &AuthArgs,
    seen: Option<Signature>,
) -> (Option<Signature>, Option<Result<Verifier, KeyError>>) {
    // Before it is read: what changes meanwhile is read again.
    let signature = signature(&args.auth_keys_file);
    let read = (signature.is_none() || signature != seen).then(|| Verifier::load(args));
    let passing = matches!(&read, Some(Err(error)) if matches!(error.problem, KeyProblem::Io(_)));
    // What could not even be read, as with too many files open, is read again.
    (signature.filter(|_| !passing), read)
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
