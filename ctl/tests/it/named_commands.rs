//! Every command that a message of a program or a document names is run as it is written: a hint that ends in "bad usage" is
//! worse than none, because people type it in the middle of an outage.
//!
//! In a document a command may be named without its arguments; it then only has to exist. A message is typed as it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use shared::test_support::TestDb;
use tempfile::TempDir;

use crate::harness::Topics;

const BAD_USAGE: i32 = 64;
const EVENT: &str = "019ab000-0000-7000-8000-000000000001";

/// What stands for a value of the reader's own, and a value for it. The longer ones come first.
const PLACEHOLDERS: [(&str, &str); 12] = [
    (
        "--event {event}",
        "--event 019ab000-0000-7000-8000-000000000001",
    ),
    (
        "--event UUID",
        "--event 019ab000-0000-7000-8000-000000000001",
    ),
    ("--event ID", "--event 019ab000-0000-7000-8000-000000000001"),
    ("COMMAND", "doctor"),
    ("RETURN", "1"),
    ("FILE", "customer.token"),
    ("NAME", "j.doe"),
    ("TEXT", "INC-7"),
    (" KID", " 3931917ec40206e2"),
    (" ID", " 1"),
    (" N", " 1"),
    ("{format}", "jwt"),
];

/// A command as written, and where.
type Named = BTreeMap<String, PathBuf>;

/// The sources of the programs, and the documents.
const FOLDERS: [&str; 7] = [
    "api",
    "relay",
    "refund-consumer",
    "ctl",
    "shared",
    "docs",
    "deploy",
];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let skipped = ["tests", "tests.rs", "adr"];
    let entries = fs::read_dir(folder).expect("a folder");
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if skipped.contains(&name) {
            continue;
        }
        if path.is_dir() {
            files(&path, found);
        } else if name.ends_with(".rs") || name.ends_with(".md") {
            found.push(path);
        }
    }
}

/// A message of a program as it is printed: without comments and tests, and with its lines joined.
fn messages(source: &str) -> String {
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut text = String::new();
    for line in source.lines() {
        let line = line.trim_start();
        if let Some(help) = line.strip_prefix("///") {
            // A paragraph of help goes on.
            text.push_str(help);
        } else if !line.starts_with("//") {
            text.push('\n');
            text.push_str(line);
        }
    }
    let text = text.replace("\\\\\n", " ").replace("\\n\\\n", "\n");
    text.replace("\\\n", "").replace("\\n", "\n")
}

fn documents(text: &str) -> String {
    text.replace("\\\n", " ")
}

/// The commands in back-quotes, and those that have a line of their own.
fn commands(text: &str) -> Vec<String> {
    let quoted = text
        .split('`')
        .filter(|part| part.starts_with("returnsctl "));
    let mut found: Vec<String> = quoted.map(str::to_owned).collect();
    for line in text.lines() {
        let (before, command) = match line.split_once("returnsctl ") {
            Some((before, rest)) if !line.contains('`') => (before, rest),
            _ => continue,
        };
        let variables = before.trim_start_matches(['"', ' ', '>']);
        let is_example =
            variables.is_empty() || variables.ends_with("  ") || variables.contains('=');
        if is_example {
            let command = command.split("\";").next().unwrap_or_default();
            let command = command.split("\",").next().unwrap_or_default();
            found.push(format!(
                "returnsctl {}",
                command.trim_end_matches(['"', '|', ' '])
            ));
        }
    }
    found
        .into_iter()
        .map(|command| command.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// `returnsctl outbox redrive`: a name, no more.
fn is_bare(command: &str) -> bool {
    let mut words = command.split(' ');
    words.all(|word| {
        word.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
            && !word.starts_with('-')
    })
}

fn named() -> (Named, Named) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the repository");
    let mut paths = vec![root.join("ARCHITECTURE.md"), root.join("README.md")];
    for folder in FOLDERS {
        files(&root.join(folder), &mut paths);
    }
    let (mut complete, mut bare) = (Named::new(), Named::new());
    for path in paths {
        let text = fs::read_to_string(&path).expect("UTF-8");
        let is_document = path.extension().is_some_and(|extension| extension == "md");
        let text = if is_document {
            documents(&text)
        } else {
            messages(&text)
        };
        for command in commands(&text) {
            // The name of the command is a value: the tests of `refunds` run what is printed.
            if command.starts_with("returnsctl refunds {") {
                continue;
            }
            let named = if is_document && is_bare(&command) {
                &mut bare
            } else {
                &mut complete
            };
            named.insert(command, path.clone());
        }
    }
    (complete, bare)
}

/// The command with a value for each placeholder. What a program fills in is a number, unless it is listed.
fn filled_in(command: &str) -> String {
    let listed = PLACEHOLDERS.iter();
    let line = listed.fold(command.to_owned(), |line, (name, value)| {
        line.replace(name, value)
    });
    let mut parts = line.split('{');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        filled.push('1');
        filled.push_str(part.split_once('}').map_or(part, |(_, rest)| rest));
    }
    filled
}

/// Where the commands run: a folder with tokens, a database, and topics of their own.
struct Place {
    db: TestDb,
    /// Of an admin.
    token: String,
    topics: Topics,
    folder: TempDir,
}

impl Place {
    async fn new() -> Self {
        let mut place = Self {
            db: TestDb::create().await,
            token: String::new(),
            topics: Topics::new(),
            folder: TempDir::new().expect("a folder"),
        };
        for name in ["customer", "courier"] {
            let mint = "returnsctl token mint --format biscuit --user 42 --role customer";
            assert!(
                place
                    .run(&format!("{mint} > {name}.token"))
                    .status
                    .success()
            );
        }
        let admin = place.run("returnsctl token mint --user 7 --role admin");
        place.token = String::from_utf8(admin.stdout)
            .expect("UTF-8")
            .trim()
            .to_owned();
        place
    }

    /// As a shell runs it: with its quotes, pipes and files.
    fn command(&self, line: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_returnsctl"));
        let path = program.parent().expect("a folder").display().to_string();
        let mut command = Command::new("sh");
        command
            .args(["-c", line])
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", format!("{path}:/usr/bin:/bin"))
            .env("DATABASE_URL", self.db.url())
            .env("DEV_GATEWAY_LISTEN", "127.0.0.1:0")
            .env("AUTH_KEYS_FILE", ".stack/keys/keys.json")
            .env("OPERATOR_TOKEN", &self.token)
            .envs(self.topics.variables())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Output {
        // A program that serves is stopped like a service.
        let line = line.replacen(
            "returnsctl dev-gateway",
            "timeout 2 returnsctl dev-gateway",
            1,
        );
        self.command(&line).output().expect("a shell")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_command_that_a_message_or_a_document_names_runs() {
    let (complete, bare) = named();
    assert!(complete.len() > 60, "{}", complete.len());
    let place = std::sync::Arc::new(Place::new().await);
    let mut runs = tokio::task::JoinSet::new();
    let bare = bare
        .into_iter()
        .map(|(command, path)| (format!("{command} --help"), path));
    let turns = std::sync::Arc::new(tokio::sync::Semaphore::new(4));
    for (command, path) in complete.into_iter().chain(bare) {
        let (place, turns) = (std::sync::Arc::clone(&place), std::sync::Arc::clone(&turns));
        runs.spawn(async move {
            let _turn = turns.acquire_owned().await.expect("never closed");
            let line = filled_in(&command);
            let ran = tokio::task::spawn_blocking(move || place.run(&line))
                .await
                .expect("no panic");
            let code = ran.status.code();
            let works = code.is_some_and(|code| code != BAD_USAGE && code < 126);
            (!works).then(|| {
                let errors = String::from_utf8_lossy(&ran.stderr).into_owned();
                format!(
                    "{} names: {command}\n  exit code {code:?}: {errors}",
                    path.display()
                )
            })
        });
    }
    let outcomes = tokio::time::timeout(Duration::from_secs(120), runs.join_all()).await;
    let mut wrong: Vec<String> = outcomes.expect("each ends").into_iter().flatten().collect();
    wrong.sort();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_command_is_found_however_it_is_written() {
    let source = r#"
        /// See `returnsctl outbox
        /// stats`. Not this:
        // `returnsctl none`
        const HELP: &str = "\
Example:
  KEY=$(cat k) returnsctl refunds retry 456 \\
    --reason 'x'";
        "To do: `returnsctl refunds \
         show {id}` shows it\n  it took effect:    returnsctl migrate --took-effect {version}"
    "#;
    let mut found = commands(&messages(source));
    found.sort();
    assert_eq!(
        found,
        [
            "returnsctl migrate --took-effect {version}",
            "returnsctl outbox stats",
            "returnsctl refunds retry 456 --reason 'x'",
            "returnsctl refunds show {id}",
        ]
    );
    let document = "Run:\n\n    returnsctl seed --orders 5 \\\n        --customer 42   # a comment\n\nor `returnsctl topics`.";
    let mut found = commands(&documents(document));
    found.sort();
    assert_eq!(
        found,
        [
            "returnsctl seed --orders 5 --customer 42 # a comment",
            "returnsctl topics"
        ]
    );
    assert!(is_bare("returnsctl dead-letters list") && !is_bare("returnsctl outbox parked --json"));
    assert!(PLACEHOLDERS.iter().any(|(_, value)| value.ends_with(EVENT)));
}
