//! What a test's own thread logs. An api of a test runs on the thread of the test.

use std::io;
use std::sync::{Arc, LazyLock, Mutex};

use tracing::Dispatch;
use tracing::subscriber::DefaultGuard;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .expect("not poisoned")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes every line and keeps none. While there is one subscriber only, tracing asks that of the current thread whether a
/// statement is of interest, and remembers the answer: another test, whose thread has none, would silence it for all.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(tracing_subscriber::registry()));

/// Captures until it is dropped.
pub(crate) struct Logs {
    buffer: Buffer,
    _guard: DefaultGuard,
}

impl Logs {
    pub(crate) fn capture() -> Self {
        LazyLock::force(&SECOND);
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        Self {
            buffer,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    /// The lines that contain these words.
    pub(crate) fn lines_with(&self, words: &str) -> Vec<String> {
        let bytes = self.buffer.0.lock().expect("not poisoned").clone();
        let text = String::from_utf8(bytes).expect("UTF-8");
        let found = text.lines().filter(|line| line.contains(words));
        found.map(str::to_owned).collect()
    }
}
