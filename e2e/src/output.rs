//! The output of a program, stdout and stderr: a thread reads it to its end and searches each line for secrets (P13).

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use serde_json::Value;
use tokio::sync::oneshot;

use crate::secrets;

/// How many lines are kept.
const KEPT: usize = 2_000;

#[derive(Debug)]
pub(crate) struct Output {
    read: Arc<Mutex<Read>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Read {
    /// The most recent lines.
    lines: Vec<String>,
    count: usize,
    /// The name of a secret that a line contained.
    leaked: Option<Arc<str>>,
}

impl Output {
    /// Reads until all processes have closed the other end of the pipe: a full pipe would block the program. The receiver
    /// gets the record "listening", or an error if the program ends before it. Each line is also written to `log`.
    pub(crate) fn read(
        pipe: PipeReader,
        mut log: Option<File>,
    ) -> (Self, oneshot::Receiver<Value>) {
        let (listening, start_line) = oneshot::channel();
        let read = Arc::<Mutex<Read>>::default();
        let kept = Arc::clone(&read);
        let thread = std::thread::spawn(move || {
            let mut listening = Some(listening);
            // Bytes, because output that is not UTF-8 is searched too.
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                if let Some(log) = &mut log {
                    // A full disk must not stop the program that writes.
                    let _ = writeln!(log, "{line}");
                }
                let record = listening.as_ref().and_then(|_| start_record(&line));
                lock(&kept).take(line);
                if let Some(record) = record
                    && let Some(listening) = listening.take()
                {
                    // The receiver may have given up.
                    let _ = listening.send(record);
                }
            }
        });
        let thread = Some(thread);
        (Self { read, thread }, start_line)
    }

    pub(crate) fn last_lines(&self) -> String {
        let read = lock(&self.read);
        let from = read.lines.len().saturating_sub(20);
        read.lines[from..].join("\n")
    }

    /// How many lines were read until now.
    pub(crate) fn count(&self) -> usize {
        lock(&self.read).count
    }

    /// The lines after the first `count`, as far as they are kept.
    pub(crate) fn lines_after(&self, count: usize) -> Vec<String> {
        let read = lock(&self.read);
        let new = read.count.saturating_sub(count);
        read.lines[read.lines.len().saturating_sub(new)..].to_vec()
    }

    /// Waits for the end of the output, which must be near. Returns the name of the secret that leaked, if any.
    pub(crate) fn finish(&mut self) -> Option<Arc<str>> {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        lock(&self.read).leaked.clone()
    }
}

impl Read {
    fn take(&mut self, line: String) {
        self.count += 1;
        self.leaked = self.leaked.take().or_else(|| secrets::found_in(&line));
        if self.lines.len() == KEPT {
            self.lines.drain(..KEPT / 2);
        }
        self.lines.push(line);
    }
}

fn start_record(line: &str) -> Option<Value> {
    let record: Value = serde_json::from_str(line).ok()?;
    (record["message"] == "listening").then_some(record)
}

fn lock(read: &Mutex<Read>) -> MutexGuard<'_, Read> {
    read.lock().unwrap_or_else(PoisonError::into_inner)
}
