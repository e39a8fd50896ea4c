//! The way from a problem or a line of the log to the trace.

use e2e::until;
use reqwest::Client;
use serde_json::Value;

use super::{DEADLINE, Traced};

#[tokio::test]
async fn a_problem_and_its_log_line_name_the_trace() -> anyhow::Result<()> {
    let traced = Traced::create(1).await?;
    let api = traced.start("returns-api").await?;
    let url = format!("http://{}/returns/1", api.api_address()?);
    let problem: Value = Client::new()
        .get(url)
        .bearer_auth("nonsense")
        .send()
        .await?
        .json()
        .await?;
    let id = |name: &str| problem[name].as_str().expect("a text").to_owned();
    let server = traced.span(&id("trace_id"), "GET /returns/{id}").await?;
    assert_eq!(server.span_id, id("span_id"));
    assert_eq!(server.attribute("returns.request_id")?, id("request_id"));
    let line = until("the refusal is logged", DEADLINE, async || {
        let lines = api.last_lines();
        let line = lines
            .lines()
            .find(|line| line.contains("a request was refused"));
        Ok(line.map(str::to_owned))
    })
    .await?;
    let line: Value = serde_json::from_str(&line)?;
    for (field, name) in [
        ("trace_id", "trace_id"),
        ("span_id", "span_id"),
        ("request.id", "request_id"),
    ] {
        assert_eq!(line[field], problem[name], "{line}");
    }
    Ok(())
}
