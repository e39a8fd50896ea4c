//! The table, as Markdown.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a report is printed"
)]

use super::Grouping;
use super::load::Measured;

pub(crate) struct Row {
    pub(crate) grouping: Grouping,
    pub(crate) connections: usize,
    pub(crate) measured: Measured,
    pub(crate) stored: i64,
    pub(crate) resident_kib: u64,
    pub(crate) mysqld_resident_kib: Option<u64>,
}

impl Row {
    /// Every response was right, and every 201 has its row.
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

    fn name(&self) -> String {
        match self.grouping {
            Grouping::GroupCommit => "group commit".to_owned(),
            Grouping::BatchesOfOne(writers) => format!("batches of one, {writers} writers"),
        }
    }

    /// CPU time per response in microseconds. Unlike the rate, it hardly changes on a busy machine.
    fn cpu_micros(&self, cores: f64) -> f64 {
        cores * 1e6 / self.per_second()
    }

    fn cells(&self) -> String {
        let cores = &self.measured.cores;
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        format!(
            "{:.1} | {:.1} | {:.1} | {:.1} | {:.2} / {:.2} / {} | {:.0} / {} | {} / {}",
            self.measured.latency.mean() / 1_000.0,
            self.millis(0.50),
            self.millis(0.95),
            self.millis(0.99),
            cores.generator,
            cores.api,
            or_dash(cores.mysqld.map(|cores| format!("{cores:.2}"))),
            self.cpu_micros(cores.api),
            or_dash(
                cores
                    .mysqld
                    .map(|cores| format!("{:.0}", self.cpu_micros(cores)))
            ),
            self.resident_kib / 1024,
            or_dash(self.mysqld_resident_kib.map(|kib| (kib / 1024).to_string())),
        )
    }
}

/// The run with the median rate, and the lowest and the highest rate.
pub(crate) struct Median {
    row: Row,
    slowest: f64,
    fastest: f64,
    all_sound: bool,
}

impl Median {
    fn of(mut runs: Vec<Row>) -> Self {
        runs.sort_by(|a, b| a.per_second().total_cmp(&b.per_second()));
        let (slowest, fastest) = (runs[0].per_second(), runs[runs.len() - 1].per_second());
        Self {
            all_sound: runs.iter().all(Row::sound),
            row: runs.swap_remove((runs.len() - 1) / 2),
            slowest,
            fastest,
        }
    }

    fn line(&self) -> String {
        format!(
            "| {} | {} | {:.0} ({:.0} to {:.0}) | {} | {} |",
            self.row.connections,
            self.row.name(),
            self.row.per_second(),
            self.slowest,
            self.fastest,
            self.row.cells(),
            if self.all_sound { "yes" } else { "NO" },
        )
    }
}

/// One entry per kind of transactions, in the order of the first round.
pub(crate) fn medians(mut rows: Vec<Row>) -> Vec<Median> {
    let mut medians = Vec::new();
    while let Some(grouping) = rows.first().map(|row| row.grouping) {
        let (runs, rest) = rows.into_iter().partition(|row| row.grouping == grouping);
        medians.push(Median::of(runs));
        rows = rest;
    }
    medians
}

pub(crate) fn progress(row: &Row) {
    eprintln!(
        "| {} | {} | {:.0} | {} | {} |",
        row.connections,
        row.name(),
        row.per_second(),
        row.cells(),
        if row.sound() { "yes" } else { "NO" },
    );
}

/// All rows, then the gain of group commit over the best kind of batches of one.
pub(crate) fn table(medians: &[Median]) {
    println!(
        "| connections | transactions | filings/s: median (range) | average ms | p50 ms | p95 ms | p99 ms | cores: generator / api / mysqld | CPU us per filing: api / mysqld | resident MiB: api / mysqld | every answer right |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for median in medians {
        println!("{}", median.line());
    }
    println!();
    for row in medians
        .iter()
        .map(|median| &median.row)
        .filter(|row| row.grouping == Grouping::GroupCommit)
    {
        let best = medians
            .iter()
            .map(|other| &other.row)
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
