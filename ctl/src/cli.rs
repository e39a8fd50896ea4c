//! The command line.

use clap::{Parser, Subcommand};
use shared::runtime::trace::TraceArgs;

use crate::{
    dead_letters, dev_gateway, doctor, healthcheck, migrate, outbox, refunds, returns, seed,
    status, token, top, topics, trace,
};

const EXIT_CODES: &str = "\
Exit codes:
  0   done, or no problem found
  1   a problem was found; the message says what to do
  2   the result is unknown, because a server could not be reached
  3   something waits for a person (doctor, status, top --once and --json)
  64  bad usage; every bad setting is listed

Each setting is a flag and a variable; see `returnsctl COMMAND --help`.";

/// Operate the returns system: schema, topics, test orders, tokens, the outbox, returns and their traces, refunds that wait for
/// a person, dead letters and a health report.
#[derive(Debug, Parser)]
#[command(name = "returnsctl", version, max_term_width = 80, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten, next_help_heading = "Traces")]
    pub(crate) trace: TraceArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Migrate(migrate::Args),
    Topics(topics::Args),
    Seed(seed::Args),
    Token(token::Args),
    Outbox(outbox::Args),
    Returns(returns::Args),
    Refunds(refunds::Args),
    Trace(trace::Args),
    DeadLetters(dead_letters::Args),
    DevGateway(dev_gateway::Args),
    Status(status::Args),
    Top(top::Args),
    Doctor(doctor::Args),
    Healthcheck(healthcheck::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::layout::{WIDTH, width};

    /// Every command below this one, by its whole name.
    fn walk(command: &mut clap::Command, visit: &mut impl FnMut(&mut clap::Command)) {
        visit(command);
        for command in command.get_subcommands_mut() {
            walk(command, visit);
        }
    }

    #[test]
    fn every_help_page_fits_the_width_of_a_terminal() {
        let mut cli = Cli::command();
        cli.build();
        let (mut pages, mut wide) = (0, Vec::new());
        walk(&mut cli, &mut |command| {
            let name = command.get_bin_name().unwrap_or("returnsctl").to_owned();
            for page in [command.render_help(), command.render_long_help()] {
                pages += 1;
                let page = page.to_string();
                let lines = page.lines().filter(|line| !line.starts_with("Usage: "));
                let lines = lines.filter(|line| width(line) > WIDTH);
                wide.extend(lines.map(|line| format!("{name}: {line}")));
            }
        });
        assert_eq!(wide, [""; 0]);
        assert!(pages > 60, "{pages} pages");
    }
}
