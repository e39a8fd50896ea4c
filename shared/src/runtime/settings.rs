//! The command line and the environment, read so that every bad value is reported at once.
//!
//! clap alone stops at the first bad value, which costs a restart per mistake. So all values are first read as text; then
//! each is checked by its own argument's parser.

use std::error::Error;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::builder::ValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command, Parser};

/// `EX_USAGE` of sysexits.h: the settings are bad, and a retry does not help.
pub const BAD_USAGE: u8 = 64;

/// Why the program does not run, and how the process should end.
#[derive(Debug)]
pub struct Refused {
    /// What to print: help and version to stdout, problems to stderr.
    pub message: String,
    /// 0 for help and version, else [`BAD_USAGE`].
    pub exit: u8,
}

/// Reads the settings `C` of a program.
///
/// # Errors
/// Every bad or missing value, one per line; or the text of `--help` and `--version`.
pub fn parse<C: Parser>(args: impl IntoIterator<Item = OsString>) -> Result<C, Refused> {
    let args: Vec<OsString> = args.into_iter().collect();
    let matches = match relaxed(C::command()).try_get_matches_from(&args) {
        Ok(matches) => matches,
        // Help, or an unknown flag: then values cannot be told apart from flags.
        Err(error) => {
            let strict = C::try_parse_from(&args).err();
            return Err(from_clap(strict.filter(repeats_no_value).unwrap_or(error)));
        }
    };
    let problems = command_problems(&C::command(), &matches);
    if problems.is_empty() {
        C::try_parse_from(&args).map_err(from_clap)
    } else {
        Err(Refused::listing(&problems))
    }
}

impl Refused {
    /// Prints the message to stdout or stderr, and returns the exit code.
    pub fn print(&self) -> ExitCode {
        // If the pipe is closed, the exit code still says it.
        let _ = if self.exit == 0 {
            writeln!(std::io::stdout(), "{}", self.message)
        } else {
            writeln!(std::io::stderr(), "{}", self.message)
        };
        ExitCode::from(self.exit)
    }

    /// Bad settings, one per line.
    pub fn listing(problems: &[String]) -> Self {
        let lines: Vec<String> = problems
            .iter()
            .map(|problem| format!("error: {problem}"))
            .collect();
        Self {
            message: lines.join("\n"),
            exit: BAD_USAGE,
        }
    }
}

fn from_clap(error: clap::Error) -> Refused {
    let wanted = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    Refused {
        message: error.to_string().trim_end().to_owned(),
        exit: if wanted { 0 } else { BAD_USAGE },
    }
}

/// These errors of clap repeat the value, which may be a secret.
fn repeats_no_value(error: &clap::Error) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::ValueValidation | ErrorKind::InvalidValue
    )
}

/// The same command, but every value is read as text and nothing is required.
fn relaxed(command: Command) -> Command {
    command
        .mut_args(|arg| {
            let arg = arg.required(false);
            if arg.get_action().takes_values() {
                arg.allow_negative_numbers(true)
                    .value_parser(ValueParser::os_string())
            } else {
                arg
            }
        })
        .mut_subcommands(relaxed)
}

/// The problems with the values of this command and of the chosen sub-command.
fn command_problems(command: &Command, matches: &ArgMatches) -> Vec<String> {
    let mut problems: Vec<String> = command
        .get_arguments()
        .filter(|arg| arg.get_action().takes_values())
        .flat_map(|arg| arg_problems(arg, matches))
        .collect();
    if let Some((name, matches)) = matches.subcommand()
        && let Some(command) = command.find_subcommand(name)
    {
        problems.extend(command_problems(command, matches));
    }
    problems
}

fn arg_problems(arg: &Arg, matches: &ArgMatches) -> Vec<String> {
    let values: Vec<&OsString> = matches
        .get_many(arg.get_id().as_str())
        .into_iter()
        .flatten()
        .collect();
    if values.is_empty() && arg.is_required_set() {
        return vec![format!("{} is required", name(arg))];
    }
    values
        .into_iter()
        .filter_map(|value| value_problem(arg, value))
        .collect()
}

/// Checks one value with a command that has only this argument.
fn value_problem(arg: &Arg, value: &OsString) -> Option<String> {
    let mut token = OsString::new();
    if let Some(long) = arg.get_long() {
        token.push(format!("--{long}="));
    }
    token.push(value);
    let single = Command::new("value").no_binary_name(true).arg(arg.clone());
    let error = single.try_get_matches_from([token]).err()?;
    if arg.is_hide_env_values_set() {
        // The value may be a secret, so only the parser's own message is shown.
        let reason = error.source().map(ToString::to_string);
        return Some(reason.unwrap_or_else(|| format!("{} is not valid", name(arg))));
    }
    let text = error.to_string();
    let paragraph = text.split("\n\n").next().unwrap_or(&text);
    let problem = paragraph.trim_start_matches("error: ").trim_end();
    Some(match arg.get_env() {
        Some(variable) => format!("{problem} ({})", variable.to_string_lossy()),
        None => problem.to_owned(),
    })
}

fn name(arg: &Arg) -> String {
    let flag = arg
        .get_long()
        .map_or_else(|| arg.get_id().to_string(), |long| format!("--{long}"));
    match arg.get_env() {
        Some(variable) => format!("{flag} ({})", variable.to_string_lossy()),
        None => flag,
    }
}

/// The section of docs/SETTINGS.md about one program: the variables of the command and of its sub-commands.
pub fn section(command: &Command) -> String {
    let mut rows = Vec::new();
    collect_rows(command, &mut rows);
    rows.sort();
    rows.dedup();
    let head = [
        format!("## {}", command.get_name()),
        String::new(),
        "| variable | flag | default | meaning |".to_owned(),
        "| --- | --- | --- | --- |".to_owned(),
    ];
    let lines: Vec<String> = head.into_iter().chain(rows).collect();
    lines.join("\n") + "\n"
}

fn collect_rows(command: &Command, rows: &mut Vec<String>) {
    rows.extend(command.get_arguments().filter_map(row));
    for sub in command.get_subcommands() {
        collect_rows(sub, rows);
    }
}

fn row(arg: &Arg) -> Option<String> {
    let variable = arg
        .get_env()
        .filter(|_| !arg.is_hide_set())?
        .to_string_lossy();
    let defaults: Vec<_> = arg
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    let default = match (defaults.is_empty(), arg.is_required_set()) {
        (false, _) => defaults.join(", "),
        (true, true) => "required".to_owned(),
        (true, false) => "unset".to_owned(),
    };
    let help = arg.get_long_help().or(arg.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let flag = arg.get_long().unwrap_or_default();
    let meaning = help.replace('|', "\\|");
    Some(format!(
        "| `{variable}` | `--{flag}` | {default} | {meaning} |"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "program", version)]
    struct Cli {
        #[arg(long, env = "SETTINGS_TEST_PORT")]
        port: u16,
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=9))]
        level: u8,
        #[arg(long, hide_env_values = true, value_parser = parse_secret)]
        secret: Option<String>,
        #[command(subcommand)]
        command: Option<Sub>,
    }

    fn parse_secret(text: &str) -> Result<String, String> {
        match text {
            "good" => Ok(text.to_owned()),
            _ => Err("SECRET must be good".to_owned()),
        }
    }

    #[derive(Debug, clap::Subcommand)]
    enum Sub {
        Mint {
            #[arg(long)]
            user: u32,
            #[arg(long)]
            force: bool,
        },
    }

    fn refused(line: &str) -> Refused {
        let args = line.split_whitespace().map(OsString::from);
        parse::<Cli>(args).expect_err("must be refused")
    }

    #[test]
    fn every_bad_value_is_reported() {
        let Refused { message, exit } = refused("program --port x --level 10 mint --user -5");
        assert_eq!(exit, BAD_USAGE);
        assert_eq!(
            message,
            "error: invalid value 'x' for '--port <PORT>': invalid digit found in string (SETTINGS_TEST_PORT)\n\
             error: invalid value '10' for '--level <LEVEL>': 10 is not in 1..=9\n\
             error: invalid value '-5' for '--user <USER>': -5 is not in 0..=4294967295"
        );
    }

    #[test]
    fn a_missing_value_is_reported_beside_a_bad_one() {
        let Refused { message, .. } = refused("program --level 10 mint");
        assert!(
            message.contains("--port (SETTINGS_TEST_PORT) is required"),
            "{message}"
        );
        assert!(message.contains("10 is not in 1..=9"), "{message}");
        assert!(message.contains("--user is required"), "{message}");
    }

    #[test]
    fn p13_a_secret_is_checked_and_not_repeated() {
        let Refused { message, .. } = refused("program --port 1 --secret s3cret");
        assert_eq!(message, "error: SECRET must be good");
        for more in ["--no-such-flag", "--help", "mint --no-such-flag"] {
            let line = format!("program --port 1 --secret=s3cret {more}");
            let Refused { message, .. } = refused(&line);
            assert!(!message.contains("s3cret"), "{message}");
        }
    }

    #[test]
    fn help_and_version_are_not_errors() {
        assert_eq!(refused("program --version").exit, 0);
        assert_eq!(refused("program --help").exit, 0);
        assert_eq!(refused("program --prot 1").exit, BAD_USAGE);
    }

    #[test]
    fn a_section_lists_the_variables_with_their_defaults() {
        let command = Command::new("program")
            .arg(
                Arg::new("port")
                    .long("port")
                    .env("SECTION_PORT")
                    .default_value("80")
                    .help("Where."),
            )
            .subcommand(
                Command::new("mint").arg(
                    Arg::new("user")
                        .long("user")
                        .env("SECTION_USER")
                        .required(true)
                        .help("Who."),
                ),
            );
        assert_eq!(
            section(&command),
            "## program\n\n| variable | flag | default | meaning |\n| --- | --- | --- | --- |\n\
             | `SECTION_PORT` | `--port` | `80` | Where. |\n\
             | `SECTION_USER` | `--user` | required | Who. |\n"
        );
    }

    #[test]
    fn good_values_are_read() {
        let args = "program --port 80 mint --user 42 --force"
            .split_whitespace()
            .map(OsString::from);
        let cli: Cli = parse(args).expect("good");
        assert_eq!((cli.port, cli.level), (80, 5));
        assert!(matches!(
            cli.command,
            Some(Sub::Mint {
                user: 42,
                force: true
            })
        ));
    }
}
