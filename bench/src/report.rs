//! The table, as Markdown.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a report is printed"
)]

use crate::api_process::Grouping;
use crate::load::Measured;

pub(crate) struct Row {
    pub(crate) grouping: Grouping,
    pub(crate) connections: usize,
    pub(crate) measured: Measured,
    pub(crate) stored: i64,
    pub(crate) resident_kib: u64,
    pub(crate) mysqld_resident_kib: Option<u64>,
}

impl Row {
    /// Every answer was right and every 201 is a row.
    pub(crate) fn sound(&self) -> bool {
        self.measured.wrong == 0 && u64::try_from(self.stored) == Ok(self.measured.filed)
    }

    fn per_second(&self) -> f64 {
        let answers = u32::try_from(self.measured.latency.len()).map_or(f64::NAN, f64::from);
        answers / self.measured.seconds
    }

    fn millis(&self, quantile: f64) -> f64 {
        let micros = self.measured.latency.value_at_quantile(quantile);
        u32::try_from(micros).map_or(f64::NAN, f64::from) / 1_000.0
    }

    fn line(&self) -> String {
        let grouping = match self.grouping {
            Grouping::GroupCommit => "group commit".to_owned(),
            Grouping::BatchesOfOne(writers) => format!("batches of one, {writers} writers"),
        };
        let cores = &self.measured.cores;
        format!(
            "| {} | {grouping} | {:.0} | {:.1} | {:.1} | {:.1} | {:.1} | {:.2} / {:.2} / {} | {} / {} | {} |",
            self.connections,
            self.per_second(),
            self.measured.latency.mean() / 1_000.0,
            self.millis(0.50),
            self.millis(0.95),
            self.millis(0.99),
            cores.generator,
            cores.api,
            cores
                .mysqld
                .map_or_else(|| "-".to_owned(), |cores| format!("{cores:.2}")),
            self.resident_kib / 1024,
            self.mysqld_resident_kib
                .map_or_else(|| "-".to_owned(), |kib| (kib / 1024).to_string()),
            if self.sound() { "yes" } else { "NO" },
        )
    }
}

pub(crate) fn progress(row: &Row) {
    eprintln!("{}", row.line());
}

pub(crate) fn complain(message: &str) {
    eprintln!("bench: {message}");
}

/// All rows, then what group commit gains over the best run with batches of one.
pub(crate) fn table(rows: &[Row]) {
    println!(
        "| connections | transactions | filings/s | average ms | p50 ms | p95 ms | p99 ms | cores: generator / api / mysqld | resident MiB: api / mysqld | every answer right |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for row in rows {
        println!("{}", row.line());
    }
    println!();
    for row in rows
        .iter()
        .filter(|row| row.grouping == Grouping::GroupCommit)
    {
        let best = rows
            .iter()
            .filter(|other| other.connections == row.connections && other.grouping != row.grouping)
            .map(Row::per_second)
            .fold(f64::NAN, f64::max);
        println!(
            "{} connections: group commit {:.0}/s, best of one {best:.0}/s, ratio {:.1}",
            row.connections,
            row.per_second(),
            row.per_second() / best
        );
    }
}
