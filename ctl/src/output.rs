//! Standard output and standard error: the one place that prints.
//!
//! A report is one JSON document with `--json`, else text of at most 80 columns. Neither has colors, and nothing but
//! progress on a terminal moves the cursor. A reader that leaves early (`returnsctl doctor | head -1`) is no failure: a
//! broken pipe ends the output, not the command, and the exit code stays the same.

use std::io::{ErrorKind, IsTerminal, Write};

use serde::Serialize;
use serde_json::Value;

use crate::error::CtlError;
use crate::layout::fit;

/// The result of a command: its fields are the JSON document.
pub(crate) trait Report: Serialize {
    /// What people read; lines may be longer than a terminal is wide.
    fn text(&self) -> String;
}

/// A result that needs no type of its own.
#[derive(Debug, Serialize)]
pub(crate) struct Message {
    #[serde(flatten)]
    pub(crate) json: Value,
    #[serde(skip)]
    pub(crate) text: String,
}

impl Report for Message {
    fn text(&self) -> String {
        self.text.clone()
    }
}

/// Prints a report as JSON or as text.
pub(crate) fn report(report: &impl Report, json: bool) -> Result<(), CtlError> {
    if json {
        print_json(report)
    } else {
        print(&fit(&report.text()))
    }
}

/// Writes lines to standard output as they are.
pub(crate) fn print(text: &str) -> Result<(), CtlError> {
    written(writeln!(std::io::stdout().lock(), "{text}"))
}

/// Writes bytes to standard output as they are.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), CtlError> {
    let mut stdout = std::io::stdout().lock();
    written(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

/// Writes one JSON document to standard output.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), CtlError> {
    let text =
        serde_json::to_string_pretty(value).expect("reports hold only strings, numbers and lists");
    print(&text)
}

/// Writes lines to standard error: broken for a terminal, whole for a log, where a search must find them.
pub(crate) fn complain(text: &str) -> Result<(), CtlError> {
    let stderr = std::io::stderr();
    let text = if stderr.is_terminal() {
        fit(text)
    } else {
        text.to_owned()
    };
    written(writeln!(stderr.lock(), "{text}"))
}

/// Overwrites the last line of a terminal; in a pipe or a file there is no progress.
pub(crate) fn progress(text: &str) -> Result<(), CtlError> {
    let mut stderr = std::io::stderr();
    if !stderr.is_terminal() {
        return Ok(());
    }
    // Back to the first column, and clear the rest of the line.
    written(write!(stderr, "\r{text}\x1b[K").and_then(|()| stderr.flush()))
}

fn written(result: std::io::Result<()>) -> Result<(), CtlError> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|source| CtlError::Io {
            what: "cannot write the output".to_owned(),
            source,
        }),
    }
}

/// What people see of a report; every line must fit a terminal.
#[cfg(test)]
#[track_caller]
pub(crate) fn expect_fits(report: &impl Report) -> String {
    use crate::layout::{WIDTH, width};

    let text = fit(&report.text());
    for line in text.lines() {
        assert!(
            width(line) <= WIDTH,
            "{} columns: {line}\n{text}",
            width(line)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let broken = Err(std::io::Error::from(ErrorKind::BrokenPipe));
        assert!(written(broken).is_ok());
        assert!(written(Err(std::io::Error::from(ErrorKind::StorageFull))).is_err());
    }
}
