//! The results of the checks.

use std::process::ExitCode;

use serde::{Serialize, Serializer};
use serde_json::json;

use crate::error::CtlError;
use crate::layout::wrap;
use crate::output;

/// The result of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Ok,
    /// It works, but not as production needs it.
    Warn,
    /// Something waits for a person. Nothing is broken.
    Person,
    Fail,
    /// A server cannot be reached, so the result is unknown.
    Unreachable,
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Check {
    name: String,
    verdict: Verdict,
    found: String,
    /// How many things wait for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<u64>,
    /// What to do; `None` for a check that is ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

/// All checks, in the order in which they ran.
#[derive(Debug, Default)]
pub(crate) struct Report {
    checks: Vec<Check>,
    /// What waits for a person is a problem.
    strict: bool,
}

impl Check {
    pub(crate) fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            verdict: Verdict::Ok,
            found: found.into(),
            waiting: None,
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

    /// `count` things wait for a person; `found` describes them.
    pub(crate) fn person(
        name: impl Into<String>,
        count: u64,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Person,
            waiting: Some(count),
            ..Self::warn(name, found, advice)
        }
    }

    /// An error as a result: a server that cannot be reached, or a failure.
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

    fn text(&self) -> String {
        let mark = match self.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Person => "wait",
            Verdict::Fail | Verdict::Unreachable => "FAIL",
        };
        let mut text = wrap(&format!("{mark}  {}: {}", self.name, self.found), 6);
        if let Some(advice) = &self.advice {
            text.push('\n');
            text.push_str(&wrap(&format!("      -> {advice}"), 9));
        }
        text
    }
}

impl Report {
    pub(crate) fn new(strict: bool) -> Self {
        Self {
            strict,
            ..Self::default()
        }
    }

    pub(crate) fn add(&mut self, check: Check) {
        self.checks.push(check);
    }

    /// 1 if a check failed, else 2 if a result is unknown, else 3 if something waits for a person.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit())
    }

    fn exit(&self) -> u8 {
        if self.has(Verdict::Fail) {
            1
        } else if self.has(Verdict::Unreachable) {
            2
        } else if self.has(Verdict::Person) {
            if self.strict { 1 } else { 3 }
        } else {
            0
        }
    }

    fn waiting(&self) -> u64 {
        self.checks.iter().filter_map(|check| check.waiting).sum()
    }

    /// One sentence about what works, and one about what waits for a person.
    fn summary(&self) -> String {
        let works = if self.has(Verdict::Fail) {
            "There are problems; see FAIL."
        } else if self.has(Verdict::Unreachable) {
            "Some results are unknown; see FAIL."
        } else if self.has(Verdict::Warn) {
            "Everything works; see warn before production."
        } else if self.has(Verdict::Person) {
            "Everything works."
        } else {
            "No problems."
        };
        match self.waiting() {
            0 => works.to_owned(),
            1 => format!("{works} 1 thing waits for a person; see wait."),
            count => format!("{works} {count} things wait for a person; see wait."),
        }
    }

    fn has(&self, verdict: Verdict) -> bool {
        self.checks.iter().any(|check| check.verdict == verdict)
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let broken = self.has(Verdict::Fail) || self.has(Verdict::Unreachable);
        json!({
            "ok": !broken,
            "exit_code": self.exit(),
            "waiting_for_a_person": self.waiting(),
            "checks": self.checks,
        })
        .serialize(serializer)
    }
}

impl output::Report for Report {
    fn text(&self) -> String {
        let mut lines: Vec<String> = self.checks.iter().map(Check::text).collect();
        lines.push(String::new());
        lines.push(self.summary());
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable() -> Check {
        let error = CtlError::Unreachable {
            server: "Kafka at h:9092".to_owned(),
            source: "refused".into(),
        };
        Check::of_error("kafka", &error)
    }

    #[test]
    fn a_problem_weighs_more_than_a_server_that_cannot_be_reached() {
        let mut report = Report::default();
        report.add(Check::ok("a", "fine"));
        report.add(Check::warn("b", "one copy", "three"));
        assert_eq!(report.exit(), 0);
        report.add(Check::person("letters", 2, "2 records", "see them"));
        assert_eq!(report.exit(), 3);
        report.add(unreachable());
        assert_eq!(report.exit(), 2);
        report.add(Check::fail("c", "wrong", "repair"));
        assert_eq!(report.exit(), 1);
    }

    #[test]
    fn what_waits_for_a_person_is_counted_and_a_problem_only_if_strict() {
        for (strict, exit) in [(false, 3), (true, 1)] {
            let mut report = Report::new(strict);
            report.add(Check::person("letters", 2, "2 records", "see them"));
            report.add(Check::person("refunds", 1, "1 attempt", "decide"));
            assert_eq!(report.exit(), exit);
            assert_eq!(
                report.summary(),
                "Everything works. 3 things wait for a person; see wait."
            );
        }
    }

    #[test]
    fn advice_is_below_its_check() {
        let check = Check::fail("clock", "30 s behind", "run NTP");
        assert_eq!(check.text(), "FAIL  clock: 30 s behind\n      -> run NTP");
    }

    #[test]
    fn wide_values_fit() {
        let mut report = Report::default();
        let name = format!("topic {} against inbox", "t".repeat(249));
        report.add(Check::fail(name, "found ".repeat(40), "advice ".repeat(40)));
        report.add(Check::of_error(
            "kafka",
            &CtlError::Unreachable {
                server: format!("Kafka at {}", "broker.example:9092,".repeat(9)),
                source: "no response".into(),
            },
        ));
        output::expect_fits(&report);
    }
}
