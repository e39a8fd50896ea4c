//! What a person may do about a return now, as commands to be pasted.

use serde::Serialize;

use crate::refunds::case::{Case, accepts};
use crate::refunds::request::Request;

#[derive(Debug, Serialize)]
pub(super) struct CommandView {
    command: &'static str,
    possible: bool,
    /// To be run, but for the words in capital letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<String>,
}

/// What the states allow, in the order in which a person would think of it.
pub(super) fn commands(case: &Case, request: Option<&Request>) -> Vec<CommandView> {
    let last = case.refund.last_number();
    let attempt = |more: &str| format!("--attempt {last} {more}");
    let mut views = vec![CommandView::of(
        case,
        "retry",
        case.retry(last).map(|_| attempt("--reason 'WHY'")),
    )];
    views.extend(requests(case));
    views.push(CommandView::of(
        case,
        "confirm-mark-paid",
        confirmation(case, request),
    ));
    let evidence = "--evidence 'HOW YOU KNOW'";
    views.push(CommandView::of(
        case,
        "mark-not-paid",
        case.mark_not_paid(last).map(|_| attempt(evidence)),
    ));
    views
}

/// One for each attempt that may have paid, the last one first; if none may, why the last may not.
fn requests(case: &Case) -> Vec<CommandView> {
    let view = |number: i32| {
        let arguments = || format!("--attempt {number} --evidence 'HOW YOU KNOW'");
        let allowed = case.mark_paid(number).map(|_| arguments());
        CommandView::of(case, "request-mark-paid", allowed)
    };
    let numbers = case
        .refund
        .attempts
        .iter()
        .rev()
        .map(|attempt| attempt.id.number);
    let possible: Vec<CommandView> = numbers.map(view).filter(|view| view.possible).collect();
    if possible.is_empty() {
        return vec![view(case.refund.last_number())];
    }
    possible
}

fn confirmation(case: &Case, request: Option<&Request>) -> Result<String, String> {
    let request = request.ok_or("nobody has requested it")?;
    let paid = case.mark_paid(request.attempt)?;
    accepts(&paid, request.gateway_ref.as_deref())?;
    request.open(case.version)?;
    Ok(format!("--request {}", request.id))
}

impl CommandView {
    /// `allowed` holds the arguments behind the return, or why there are none.
    fn of(case: &Case, command: &'static str, allowed: Result<String, String>) -> Self {
        let line = |arguments| {
            format!(
                "returnsctl refunds {command} {} {arguments}",
                case.return_id
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
}
