//! Tables in Markdown, and progress messages.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a report is printed"
)]

pub(crate) fn progress(line: &str) {
    eprintln!("{line}");
}

pub(crate) fn table(title: &str, columns: &str, lines: &[String]) {
    println!("\n{title}\n\n{columns}");
    let count = columns.matches('|').count() - 1;
    println!("|{}", "---|".repeat(count));
    for line in lines {
        println!("{line}");
    }
}

/// The run with the median of `figure`, and the lowest and the highest figure.
pub(crate) fn median<T>(mut runs: Vec<T>, figure: impl Fn(&T) -> f64) -> (T, f64, f64) {
    runs.sort_by(|a, b| figure(a).total_cmp(&figure(b)));
    let (low, high) = (figure(&runs[0]), figure(&runs[runs.len() - 1]));
    let middle = (runs.len() - 1) / 2;
    (runs.swap_remove(middle), low, high)
}
