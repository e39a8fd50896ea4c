//! What a person may do about a return now, as commands to paste.

use serde::Serialize;

use crate::layout::{WIDTH, width};
use crate::refunds::refund::{Refund, accepts};
use crate::refunds::request::MarkPaidRequest;

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
pub(super) fn commands(refund: &Refund, request: Option<&MarkPaidRequest>) -> Vec<CommandView> {
    let last = refund.state.last_number();
    let attempt = |more: &str| format!("--attempt {last} {more}");
    let mut views = vec![CommandView::of(
        refund,
        "retry",
        refund.retry(last).map(|_| attempt("--reason 'WHY'")),
    )];
    views.extend(requests(refund));
    views.push(CommandView::of(
        refund,
        "confirm-mark-paid",
        confirmation(refund, request),
    ));
    let evidence = "--evidence 'HOW YOU KNOW'";
    views.push(CommandView::of(
        refund,
        "mark-not-paid",
        refund.mark_not_paid(last).map(|_| attempt(evidence)),
    ));
    views
}

/// One request for each attempt that may have paid, the last one first; if there is none, why the last may not have.
fn requests(refund: &Refund) -> Vec<CommandView> {
    let view = |number: i32| {
        let arguments = || format!("--attempt {number} --evidence 'HOW YOU KNOW'");
        let allowed = refund.mark_paid(number).map(|_| arguments());
        CommandView::of(refund, "request-mark-paid", allowed)
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

fn confirmation(refund: &Refund, request: Option<&MarkPaidRequest>) -> Result<String, String> {
    let request = request.ok_or("nobody has requested it")?;
    let paid = refund.mark_paid(request.attempt)?;
    accepts(&paid, request.gateway_ref.as_deref())?;
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
        let second = if self.command == "confirm-mark-paid" {
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
