//! Requests and responses by operation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::Context;
use serde_json::Value;

/// If fewer valid requests than this get 2xx, the operation was tested only up to its first checks.
const LEAST_SHARE_PERCENT: u64 = 20;

#[derive(Debug, Default)]
pub struct Tally {
    operations: BTreeMap<String, Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    cases: u64,
    /// Valid requests under a role that is allowed; `done` of them got 2xx.
    positive: u64,
    done: u64,
    negative: u64,
    statuses: BTreeSet<u64>,
}

impl Tally {
    /// Every operation of the document, without requests.
    ///
    /// # Errors
    /// The document is not an OpenAPI document.
    pub(super) fn of(document: &Value) -> anyhow::Result<Self> {
        let mut tally = Self::default();
        for path in document["paths"].as_object().context("paths")?.values() {
            for operation in path.as_object().context("operations")?.values() {
                let id = operation["operationId"].as_str().context("operationId")?;
                tally.operations.insert(id.to_owned(), Counts::default());
            }
        }
        Ok(tally)
    }

    /// Adds the rows of one run: operation, kind, status, number.
    ///
    /// # Errors
    /// The rows have another form.
    pub(super) fn add(&mut self, role: &str, rows: &Value) -> anyhow::Result<()> {
        let rows = rows.as_array().context("a list")?;
        for row in rows {
            let text = |at: usize| row[at].as_str().with_context(|| format!("{row}"));
            let number = |at: usize| row[at].as_u64().with_context(|| format!("{row}"));
            let (operation, kind, status, cases) = (text(0)?, text(1)?, number(2)?, number(3)?);
            let counts = self.operations.entry(operation.to_owned()).or_default();
            counts.cases += cases;
            counts.statuses.insert(status);
            if kind == "positive" && role == "fitting" {
                counts.positive += cases;
                if (200..300).contains(&status) {
                    counts.done += cases;
                }
            }
            if kind == "negative" {
                counts.negative += cases;
            }
        }
        Ok(())
    }

    pub fn cases(&self) -> u64 {
        self.operations.values().map(|counts| counts.cases).sum()
    }

    /// Operations for which too few valid requests succeeded.
    pub fn mostly_refused(&self) -> Vec<&str> {
        let refused = |counts: &Counts| {
            counts.positive == 0 || counts.done * 100 < counts.positive * LEAST_SHARE_PERCENT
        };
        let operations = self.operations.iter();
        operations
            .filter(|(_, counts)| refused(counts))
            .map(|(operation, _)| operation.as_str())
            .collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<18} {:>6} {:>9} {:>6} {:>9}  statuses",
            "operation", "cases", "positive", "2xx", "negative"
        )?;
        for (operation, counts) in &self.operations {
            let share = (counts.done * 100).checked_div(counts.positive);
            let share = share.map_or("-".to_owned(), |share| format!("{share} %"));
            let statuses: Vec<String> = counts.statuses.iter().map(u64::to_string).collect();
            writeln!(
                f,
                "{operation:<18} {:>6} {:>9} {share:>6} {:>9}  {}",
                counts.cases,
                counts.positive,
                counts.negative,
                statuses.join(" ")
            )?;
        }
        write!(f, "{:<18} {:>6}", "in all", self.cases())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_share_counts_valid_requests_under_an_allowed_role() {
        let mut tally = Tally::default();
        let fitting = json!([
            ["getReturn", "positive", 200, 2],
            ["getReturn", "positive", 404, 8],
            ["getReturn", "negative", 404, 5],
            ["getReturn", "probe", 405, 1],
            ["listOrders", "positive", 200, 19],
            ["listOrders", "positive", 403, 81]
        ]);
        tally.add("fitting", &fitting).expect("rows");
        let other = json!([["getReturn", "positive", 403, 100]]);
        tally.add("auditor", &other).expect("rows");
        assert_eq!(tally.cases(), 216);
        assert_eq!(tally.mostly_refused(), ["listOrders"]);
        let shown = tally.to_string();
        assert!(
            shown.contains("getReturn             116        10   20 %         5  200 403 404 405"),
            "{shown}"
        );
    }

    #[test]
    fn an_operation_without_valid_requests_was_not_tested() {
        let mut tally = Tally::default();
        let rows = json!([["getReturn", "negative", 404, 5]]);
        tally.add("fitting", &rows).expect("rows");
        assert_eq!(tally.mostly_refused(), ["getReturn"]);
        let document = json!({"paths": {"/orders": {"get": {"operationId": "listOrders"}}}});
        let tally_of_none = Tally::of(&document).expect("a document");
        assert_eq!(tally_of_none.mostly_refused(), ["listOrders"]);
        assert!(tally.add("fitting", &json!([["getReturn"]])).is_err());
    }
}
