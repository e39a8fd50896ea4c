//! The checks' results, and how they are told.

use std::process::ExitCode;

use serde::Serialize;

use crate::error::CtlError;
use crate::output;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Ok,
    /// Works, but not as production needs it.
    Warn,
    Fail,
    /// A server does not answer, so this could not be told.
    Unreachable,
}

/// One line.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Check {
    name: String,
    verdict: Verdict,
    found: String,
    /// What to do; absent when all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

/// All lines, in the order in which they were checked.
#[derive(Debug, Default)]
pub(crate) struct Report {
    checks: Vec<Check>,
}

impl Check {
    pub(crate) fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            verdict: Verdict::Ok,
            found: found.into(),
            advice: None,
        }
    }

    pub(crate) fn warn(
        name: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Warn,
            advice: Some(advice.into()),
            ..Self::ok(name, found)
        }
    }

    pub(crate) fn fail(
        name: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Fail,
            ..Self::warn(name, found, advice)
        }
    }

    /// What an error means for this line: a server that is away, or a finding.
    pub(crate) fn of_error(name: impl Into<String>, error: &CtlError) -> Self {
        let text = error.report();
        let mut lines = text.lines();
        let found = lines
            .next()
            .and_then(|line| line.split_once(": "))
            .map_or("", |(_label, found)| found)
            .to_owned();
        let advice: Vec<&str> = lines
            .map(|line| line.trim().trim_start_matches("To do: "))
            .collect();
        Self {
            verdict: if error.is_transient() {
                Verdict::Unreachable
            } else {
                Verdict::Fail
            },
            advice: (!advice.is_empty()).then(|| advice.join("; ")),
            ..Self::ok(name, found)
        }
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.verdict == Verdict::Ok
    }

    #[cfg(test)]
    pub(super) fn verdict(&self) -> Verdict {
        self.verdict
    }

    fn line(&self, name_width: usize) -> String {
        let mark = match self.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail | Verdict::Unreachable => "FAIL",
        };
        let mut line = format!("{mark}  {:name_width$}  {}", self.name, self.found);
        if let Some(advice) = &self.advice {
            line.push_str(&format!("\n      {:name_width$}  -> {advice}", ""));
        }
        line
    }
}

impl Report {
    pub(crate) fn add(&mut self, check: Check) {
        self.checks.push(check);
    }

    /// 1 when something is wrong, else 2 when something could not be told.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit())
    }

    fn exit(&self) -> u8 {
        if self.has(Verdict::Fail) {
            1
        } else if self.has(Verdict::Unreachable) {
            2
        } else {
            0
        }
    }

    fn has(&self, verdict: Verdict) -> bool {
        self.checks.iter().any(|check| check.verdict == verdict)
    }

    pub(crate) fn tell(&self, json: bool) -> Result<(), CtlError> {
        if json {
            return output::print_json(&serde_json::json!({
                "ok": self.exit() == 0,
                "checks": self.checks,
            }));
        }
        let width = self.checks.iter().map(|check| check.name.len()).max();
        for check in &self.checks {
            output::print(&check.line(width.unwrap_or(0)))?;
        }
        output::print(match self.exit() {
            0 if self.has(Verdict::Warn) => "\nall works; see warn before production",
            0 => "\nall is well",
            1 => "\nfound problems; see FAIL",
            _ => "\ncould not tell everything; see FAIL",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away() -> Check {
        let error = CtlError::Unreachable {
            server: "Kafka",
            source: "refused".into(),
        };
        Check::of_error("kafka", &error)
    }

    #[test]
    fn a_problem_weighs_more_than_a_server_that_is_away() {
        let mut report = Report::default();
        report.add(Check::ok("a", "fine"));
        report.add(Check::warn("b", "one copy", "three"));
        assert_eq!(report.exit(), 0);
        report.add(away());
        assert_eq!(report.exit(), 2);
        report.add(Check::fail("c", "wrong", "repair"));
        assert_eq!(report.exit(), 1);
    }

    #[test]
    fn advice_stands_under_its_line() {
        let check = Check::fail("clock", "30 s behind", "run NTP");
        assert_eq!(
            check.line(7),
            "FAIL  clock    30 s behind\n               -> run NTP"
        );
    }
}
