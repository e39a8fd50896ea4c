//! What a person may do about a return now, as commands to paste.

use serde::Serialize;
use time::OffsetDateTime;

use crate::layout::{WIDTH, width};
use crate::refunds::mark::Mark;
use crate::refunds::refund::Refund;
use crate::refunds::request::MarkRequest;

#[derive(Debug, Serialize)]
pub(super) struct CommandView {
    command: &'static str,
    possible: bool,
    /// Complete, but for the words in capital letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<String>,
}

/// The commands, in the order in which a person would think of them.
pub(super) fn commands(
    refund: &Refund,
    request: Option<&MarkRequest>,
    now: OffsetDateTime,
) -> Vec<CommandView> {
    let last = refund.state.last_number();
    let retry = refund
        .retry(last)
        .map(|_| format!("--attempt {last} --reason 'WHY'"));
    let mut views = vec![CommandView::of(refund, "retry", retry)];
    for mark in Mark::ALL {
        views.extend(requests(refund, mark));
        let confirmed = confirmation(refund, mark, request);
        views.push(CommandView::of(refund, mark.confirm_command(), confirmed));
    }
    let given_up = refund.give_up(last, now);
    let given_up = given_up.map(|_| format!("--attempt {last} --reason 'WHY'"));
    views.push(CommandView::of(refund, "park", given_up));
    views
}

/// One request for each attempt of which it may be stated, the last one first; if there is none, why not of the last.
fn requests(refund: &Refund, mark: Mark) -> Vec<CommandView> {
    let view = |number: i32| {
        let arguments = || format!("--attempt {number} --evidence 'HOW YOU KNOW'");
        let allowed = mark.check(refund, number, None).map(|_| arguments());
        CommandView::of(refund, mark.request_command(), allowed)
    };
    let numbers = refund
        .state
        .attempts
        .iter()
        .rev()
        .map(|attempt| attempt.id.number);
    let possible: Vec<CommandView> = numbers.map(view).filter(|view| view.possible).collect();
    if possible.is_empty() {
        return vec![view(refund.state.last_number())];
    }
    possible
}

fn confirmation(
    refund: &Refund,
    mark: Mark,
    request: Option<&MarkRequest>,
) -> Result<String, String> {
    let request = request.ok_or("nobody has requested it")?;
    request.states(mark)?;
    mark.check(refund, request.attempt, request.gateway_ref.as_deref())?;
    request.open(refund.version)?;
    Ok(format!("--request {}", request.id))
}

impl CommandView {
    /// `allowed` holds the arguments after the return, or why the command is refused.
    fn of(refund: &Refund, command: &'static str, allowed: Result<String, String>) -> Self {
        let line = |arguments| {
            format!(
                "returnsctl refunds {command} {} {arguments}",
                refund.return_id
            )
        };
        let (line, why_not) = match allowed {
            Ok(arguments) => (Some(line(arguments)), None),
            Err(why_not) => (None, Some(why_not)),
        };
        Self {
            command,
            possible: line.is_some(),
            line,
            why_not,
        }
    }

    /// The command, continued on a second line where it is wider than a terminal.
    pub(super) fn to_paste(&self) -> Option<String> {
        let line = format!("  {}", self.line.as_ref()?);
        let second = if self.command.starts_with("confirm-") {
            " --request"
        } else {
            " --attempt"
        };
        match line.split_once(second) {
            Some((first, rest)) if width(&line) > WIDTH => {
                Some(format!("{first} \\\n    {}{rest}", second.trim_start()))
            }
            _ => Some(line),
        }
    }
}
