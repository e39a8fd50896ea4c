//! Text that fits a terminal of 80 columns.

/// The default width of a terminal, in columns.
pub(crate) const WIDTH: usize = 80;
/// Between two columns of a table.
const GAP: &str = "  ";

/// The columns of the terminal that standard output is; [`WIDTH`] if it is none, or a narrower one.
pub(crate) fn terminal_width() -> usize {
    let size = terminal_size::terminal_size_of(std::io::stdout());
    size.map_or(WIDTH, |(columns, _)| WIDTH.max(columns.0.into()))
}

/// A line of a table, and the lines that belong to it: those stand below, indented.
#[derive(Debug, Clone)]
pub(crate) struct Row<const N: usize> {
    pub(crate) cells: [String; N],
    pub(crate) below: Vec<String>,
}

impl<const N: usize> From<[String; N]> for Row<N> {
    fn from(cells: [String; N]) -> Self {
        Self {
            cells,
            below: Vec::new(),
        }
    }
}

/// Rows under a head line. A column is as wide as its widest cell; if the table is wider than [`WIDTH`], the widest
/// columns are made narrower and their cells shortened.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[Row<N>]) -> String {
    let mut widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| width(&row.cells[column]));
        cells.fold(width(head[column]), usize::max)
    });
    while widths.iter().sum::<usize>() + GAP.len() * N.saturating_sub(1) > WIDTH {
        *widths.iter_mut().max().expect("a table has a column") -= 1;
    }
    let line = |cells: [&str; N]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{:width$}", shorten(cell, width)))
            .collect();
        padded.join(GAP).trim_end().to_owned()
    };
    let mut lines = vec![line(head)];
    for row in rows {
        lines.push(line(row.cells.each_ref().map(String::as_str)));
        lines.extend(row.below.iter().map(|text| format!("  {text}")));
    }
    fit(&lines.join("\n"))
}

/// The text, or its beginning and end around a `…`, in at most `most` characters.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    let length = width(text);
    if length <= most {
        return text.to_owned();
    }
    let kept = most.saturating_sub(1);
    let tail = kept / 2;
    let beginning = text.chars().take(kept - tail);
    beginning
        .chain(['…'])
        .chain(text.chars().skip(length - tail))
        .collect()
}

/// Breaks each line that is longer than [`WIDTH`]; the rest of it is indented by two columns more.
pub(crate) fn fit(text: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| wrap(line, indent(line) + 2))
        .collect();
    lines.join("\n")
}

/// Breaks one line at its spaces, and a word that is longer than a line anywhere, unless it is a hexadecimal id, which is
/// made to be copied. The following lines are indented by `hanging`.
pub(crate) fn wrap(line: &str, hanging: usize) -> String {
    wrap_at(line, hanging, WIDTH)
}

/// As [`wrap`], for a terminal of `columns`.
pub(crate) fn wrap_at(line: &str, hanging: usize, columns: usize) -> String {
    let margin = " ".repeat(hanging.min(columns / 2));
    let mut lines = Vec::new();
    let mut rest = line.to_owned();
    while width(&rest) > columns {
        let (first, after) = rest.split_at(cut(&rest, columns));
        lines.push(first.trim_end().to_owned());
        if after.is_empty() {
            return lines.join("\n");
        }
        rest = format!("{margin}{}", after.trim_start());
    }
    lines.push(rest);
    lines.join("\n")
}

/// Where a line that is too long is cut: at the last space that leaves it short enough.
fn cut(line: &str, columns: usize) -> usize {
    let mut ends = line.char_indices().map(|(at, _)| at).skip(columns);
    let edge = ends.next().unwrap_or(line.len());
    // A space at the edge itself is no part of the first line.
    let until = ends.next().unwrap_or(line.len());
    match line[..until].rfind(' ') {
        Some(space) if space > indent(line) => space,
        _ => end_of_id(line).unwrap_or(edge),
    }
}

/// The revocation id of a Biscuit: an Ed25519 signature in hexadecimal.
const LONGEST_ID: usize = 128;

/// Where the first word ends, if it is a hash or a revocation id (hexadecimal).
fn end_of_id(line: &str) -> Option<usize> {
    let start = indent(line);
    let word = line[start..].split(' ').next()?;
    let is_id = word.len() <= LONGEST_ID && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then_some(start + word.len())
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// Characters, each of which takes one column: what we print is Latin text, numbers and ids.
pub(crate) fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<const N: usize>(cells: [&str; N]) -> Row<N> {
        cells.map(str::to_owned).into()
    }

    #[test]
    fn an_id_is_not_broken() {
        let id = "f".repeat(128);
        assert_eq!(
            wrap(&format!("revoked {id}"), 2),
            format!("revoked\n  {id}")
        );
        assert_eq!(
            wrap(&format!("{id} revoked"), 2),
            format!("{id}\n  revoked")
        );
        assert_eq!(wrap(&id, 2), id);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut rows = [row(["order.returns", "12"]), row(["b", "1"])];
        rows[0].below.push("a note".to_owned());
        assert_eq!(
            table(["topic", "partitions"], &rows),
            "topic          partitions\norder.returns  12\n  a note\nb              1"
        );
    }

    #[test]
    fn the_widest_columns_are_shortened_until_a_table_fits() {
        let rows = [row([
            &"n".repeat(60),
            "9223372036854775807",
            &"x".repeat(60),
        ])];
        let text = table(["name", "number", "text"], &rows);
        let last = text.lines().last().expect("a row");
        assert_eq!(width(last), WIDTH, "{last}");
        assert!(last.contains("9223372036854775807"), "{last}");
        assert_eq!(last.matches('…').count(), 2, "{last}");
    }

    #[test]
    fn a_shortened_text_keeps_both_ends() {
        assert_eq!(shorten("relay-a", 7), "relay-a");
        assert_eq!(shorten("relay-7f9c-a3b1", 9), "rela…a3b1");
        assert_eq!(shorten("größer", 3), "g…r");
    }

    #[test]
    fn long_lines_are_broken_at_spaces_and_long_words_anywhere() {
        let words = "word ".repeat(40);
        let text = format!(
            "  {}\n{}\n  a {}",
            words.trim_end(),
            "x,".repeat(85),
            "y,".repeat(39)
        );
        let fitted = fit(&text);
        for line in fitted.lines() {
            assert!(width(line) <= WIDTH, "{line}");
        }
        let unbroken = |text: &str| text.split_whitespace().collect::<String>();
        assert_eq!(unbroken(&fitted), unbroken(&text), "nothing is lost");
        assert!(fitted.contains("\n    word"), "{fitted}");
        // A space right after the last column needs no earlier break.
        let exact = format!("{} {}", "x".repeat(WIDTH), "y");
        assert_eq!(fit(&exact), format!("{}\n  y", "x".repeat(WIDTH)));
    }
}
