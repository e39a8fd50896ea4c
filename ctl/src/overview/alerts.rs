//! The state of each alert, as Prometheus has it (`GET /api/v1/rules`).

use serde::{Deserialize, Serialize};

/// One alerting rule. The names are those of `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Alert {
    pub(crate) name: String,
    pub(crate) state: AlertState,
    /// `page` or `ticket`; empty if the rule has none.
    pub(crate) severity: String,
    /// How many series are in this state.
    pub(crate) count: usize,
}

/// The worst state comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AlertState {
    Firing,
    Pending,
    /// Of a rule that Prometheus has not evaluated yet.
    Unknown,
    Inactive,
}

#[derive(Deserialize)]
struct Response {
    data: Groups,
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    name: String,
    state: AlertState,
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    alerts: Vec<serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
struct Labels {
    #[serde(default)]
    severity: String,
}

/// The alerts of a response, in the order of their states.
///
/// # Errors
/// The body is no response of Prometheus.
pub(super) fn parse(body: &str) -> Result<Vec<Alert>, serde_json::Error> {
    let response: Response = serde_json::from_str(body)?;
    let rules = response.data.groups.into_iter();
    let mut alerts: Vec<Alert> = rules
        .flat_map(|group| group.rules)
        .map(|rule| Alert {
            name: rule.name,
            state: rule.state,
            severity: rule.labels.severity,
            count: rule.alerts.len(),
        })
        .collect();
    alerts.sort_by(|a, b| (a.state, &a.severity, &a.name).cmp(&(b.state, &b.severity, &b.name)));
    Ok(alerts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firing_alerts_come_first() {
        let body = r#"{"status":"success","data":{"groups":[{"name":"g","file":"f","rules":[
            {"state":"inactive","name":"B","labels":{"severity":"page"},"alerts":[],"type":"alerting"},
            {"state":"pending","name":"C","labels":{},"alerts":[{"state":"pending"}],"type":"alerting"},
            {"state":"firing","name":"A","labels":{"severity":"ticket"},"alerts":[{},{}],"type":"alerting"}]}]}}"#;
        let alerts = parse(body).expect("a response");
        let found: Vec<_> = alerts
            .iter()
            .map(|alert| (alert.name.as_str(), alert.state, alert.count))
            .collect();
        let expected = [
            ("A", AlertState::Firing, 2),
            ("C", AlertState::Pending, 1),
            ("B", AlertState::Inactive, 0),
        ];
        assert_eq!(found, expected);
        assert!(parse("<html>").is_err());
    }
}
