//! Standard output and standard error, for people and for scripts.
//!
//! A reader that has seen enough (`returnsctl doctor | head -1`) is no failure: a broken pipe ends the output,
//! not the command, and the exit code still tells what was found.

use std::io::{ErrorKind, Write};

use serde::Serialize;

use crate::error::CtlError;

/// Writes lines to standard output.
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

/// Writes lines to standard error.
pub(crate) fn complain(text: &str) -> Result<(), CtlError> {
    written(writeln!(std::io::stderr().lock(), "{text}"))
}

/// Overwrites the line of a terminal, or appends one to a log.
pub(crate) fn progress(text: &str, terminal: bool) -> Result<(), CtlError> {
    let mut stderr = std::io::stderr().lock();
    written(if terminal {
        // Back to the first column, and clear the rest of the line.
        write!(stderr, "\r{text}\x1b[K").and_then(|()| stderr.flush())
    } else {
        writeln!(stderr, "{text}")
    })
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

/// Rows under a head line, each column as wide as its widest cell.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .chain([head[column].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(head)];
    lines.extend(
        rows.iter()
            .map(|row| line(std::array::from_fn(|column| row[column].as_str()))),
    );
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["order.returns".to_owned(), "12".to_owned()],
            ["b".to_owned(), "1".to_owned()],
        ];
        assert_eq!(
            table(["topic", "partitions"], &rows),
            "topic          partitions\norder.returns  12\nb              1"
        );
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let broken = Err(std::io::Error::from(ErrorKind::BrokenPipe));
        assert!(written(broken).is_ok());
        assert!(written(Err(std::io::Error::from(ErrorKind::StorageFull))).is_err());
    }
}
