//! `returnsctl status`: every queue, who works on it, and what waits for a person, once.

use std::process::ExitCode;

use crate::error::CtlError;
use crate::layout::wrap;
use crate::output;
use crate::overview::{Collector, Line, Overview, SourceArgs};

const HELP: &str = "\
Only reads, and ends within five seconds whatever is away: what cannot be read is shown as UNKNOWN with the reason. \
`returnsctl top` shows the same as a live view; `returnsctl doctor` also checks settings, keys and the audit trail.

Examples:
  returnsctl status
  returnsctl status --ops 127.0.0.1:9101,127.0.0.1:9102,127.0.0.1:9103
  returnsctl status --json

Exit codes, as of doctor: 0 nothing stands still and nothing waits for a person; 1 something stands still; 2 something \
cannot be read, so the result is unknown; 3 nothing stands still, but something waits for a person; 64 bad usage. Alerts that \
fire do not change it.";

/// Show every queue, who works on it, and what waits for a person with the command to type next.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    sources: SourceArgs,

    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let overview = Collector::new(args.sources)?.collect().await;
    output::report(&overview, args.json)?;
    Ok(ExitCode::from(overview.exit_code))
}

/// Columns of the labels.
const LABEL: usize = 10;

impl output::Report for Overview {
    fn text(&self) -> String {
        let mut lines = vec![format!("status at {}", self.taken_at), String::new()];
        lines.extend(self.queues().iter().map(line));
        lines.push(String::new());
        lines.extend(self.workers().iter().map(line));
        lines.push(line(&self.alert_summary()));
        lines.push(String::new());
        for one in &self.waiting {
            lines.push(wrap(&one.text(), LABEL));
            lines.push(wrap(&format!("      {}", one.next()), LABEL));
        }
        lines.push(self.verdict().to_owned());
        lines.join("\n")
    }
}

fn line(line: &Line) -> String {
    wrap(&format!("{:LABEL$}{}", line.label, line.text), LABEL)
}
