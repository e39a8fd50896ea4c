//! Why a sub-command could not do its work, and the exit code for scripts.

use std::error::Error;
use std::process::ExitCode;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use shared::domain::transition::TransitionError;
use shared::runtime::db::{DbError, DbFailure, mysql_number};
use shared::runtime::schema::SchemaError;
use shared::runtime::settings::Refused;

/// The variants follow what the person at the terminal can do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CtlError {
    /// Settings that contradict each other or make no sense: correct them.
    #[error("{}", .0.join("; "))]
    Usage(Vec<String>),
    /// The text says what is wrong and what to do about it.
    #[error("{0}")]
    Problem(String),
    /// As `Problem`, with the error that a server or a library returned.
    #[error("{problem}")]
    Refused {
        problem: String,
        source: Box<dyn Error + Send + Sync>,
    },
    /// Other sessions held row locks for too long; everything was rolled back.
    #[error(
        "MySQL is busy: other sessions hold rows that this command has to lock; nothing was changed"
    )]
    Busy {
        source: Box<dyn Error + Send + Sync>,
    },
    /// MySQL responds and cannot do it now; everything was rolled back.
    #[error("MySQL cannot do this now; nothing was changed")]
    NotNow {
        source: Box<dyn Error + Send + Sync>,
    },
    /// The response to COMMIT was lost. The text says what may have happened and how to find out.
    #[error("{problem}")]
    Unclear {
        problem: String,
        source: Box<dyn Error + Send + Sync>,
    },
    /// A server does not respond, or does not let us in.
    #[error("cannot reach {server}")]
    Unreachable {
        /// Its kind, host and port; never a user or a password.
        server: String,
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("{what}")]
    Io {
        what: String,
        source: std::io::Error,
    },
}

impl CtlError {
    /// Stable label for scripts.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Usage(_) => "usage",
            Self::Problem(_) => "problem",
            Self::Refused { .. } => "refused",
            Self::Busy { .. } => "busy",
            Self::NotNow { .. } => "not_now",
            Self::Unclear { .. } => "unclear",
            Self::Unreachable { .. } => "unreachable",
            Self::Io { .. } => "io",
        }
    }

    /// Whether the same command may succeed later with nothing changed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Busy { .. } | Self::NotNow { .. } => true,
            Self::Usage(_)
            | Self::Problem(_)
            | Self::Refused { .. }
            | Self::Unclear { .. }
            | Self::Io { .. } => false,
        }
    }

    fn away(source: Box<dyn Error + Send + Sync>) -> Self {
        Self::Unreachable {
            server: "MySQL".to_owned(),
            source,
        }
    }

    /// The same; a server that cannot be reached is named with its host and port.
    pub(crate) fn at(self, address: &str) -> Self {
        match self {
            Self::Unreachable { server, source } => Self::Unreachable {
                server: format!("{server} at {address}"),
                source,
            },
            other => other,
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(shared::runtime::settings::BAD_USAGE),
            Self::Problem(_) | Self::Refused { .. } | Self::Io { .. } => ExitCode::from(1),
            Self::Unreachable { .. }
            | Self::Busy { .. }
            | Self::NotNow { .. }
            | Self::Unclear { .. } => ExitCode::from(2),
        }
    }

    /// The text for standard error: the error, its causes, and what to do.
    pub(crate) fn report(&self) -> String {
        let mut text = match self {
            Self::Usage(problems) => return Refused::listing(problems).message,
            other => format!("error[{}]: {other}", other.code()),
        };
        let mut cause = self.source();
        while let Some(error) = cause {
            let reason = error.to_string();
            // Some libraries repeat their cause in their own text.
            if !text.contains(&reason) {
                text.push_str(&format!("\n  because: {reason}"));
            }
            cause = error.source();
        }
        text.push_str(self.advice());
        text
    }

    /// What to do, where the text itself does not say.
    fn advice(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => {
                "\nTo do: see that it runs and that the address is right, then try again"
            }
            Self::Busy { .. } => "\nTo do: run it again",
            Self::NotNow { .. } => "\nTo do: repair the cause, then run it again",
            Self::Usage(_)
            | Self::Problem(_)
            | Self::Refused { .. }
            | Self::Unclear { .. }
            | Self::Io { .. } => "",
        }
    }
}

/// MySQL error 1049.
const UNKNOWN_DATABASE: u16 = 1049;
/// MySQL error 1419: creating a trigger while the binary log is on needs SUPER or the variable.
const TRIGGER_NEEDS_SUPER: u16 = 1419;

impl From<sqlx::Error> for CtlError {
    fn from(error: sqlx::Error) -> Self {
        let number = mysql_number(&error);
        if number == Some(UNKNOWN_DATABASE) {
            return Self::Problem(missing_database(&error));
        }
        let source = Box::new(error);
        match DbFailure::of(&source) {
            DbFailure::LockConflict => Self::Busy { source },
            DbFailure::ReadOnly | DbFailure::Unavailable => Self::NotNow { source },
            DbFailure::ConnectionLost => Self::away(source),
            // The login is refused, so the state of the database is unknown.
            DbFailure::Denied if matches!(number, Some(1044 | 1045 | 1698)) => Self::away(source),
            DbFailure::Denied
            | DbFailure::Duplicate { .. }
            | DbFailure::Values
            | DbFailure::Statement => Self::Refused {
                problem: "MySQL refused a statement".to_owned(),
                source,
            },
        }
    }
}

impl From<DbError> for CtlError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Database(cause) => cause.into(),
            DbError::NoConnection(_) | DbError::DeadlinePassed(_) | DbError::LoginRefused(_) => {
                Self::away(Box::new(error))
            }
            DbError::Panicked => Self::Refused {
                problem: "this is a bug of returnsctl; nothing was changed".to_owned(),
                source: Box::new(error),
            },
        }
    }
}

impl From<SchemaError> for CtlError {
    fn from(error: SchemaError) -> Self {
        match error {
            SchemaError::Database(cause) => cause.into(),
            SchemaError::Failed { file, source } => Self::Refused {
                problem: failed_migration(&file, &source),
                source: Box::new(source),
            },
            SchemaError::Interrupted { version, file } => {
                Self::Problem(interrupted_migration(version, &file))
            }
            SchemaError::Locked {
                waited_secs,
                holder,
            } => Self::Problem(held_lock(waited_secs, holder)),
            SchemaError::TooOld { .. }
            | SchemaError::Missing
            | SchemaError::NotInterrupted { .. }
            | SchemaError::Unknown(_)
            | SchemaError::Edited { .. } => Self::Problem(error.to_string()),
        }
    }
}

impl From<TransitionError> for CtlError {
    fn from(error: TransitionError) -> Self {
        match error {
            TransitionError::Database(cause) => cause.into(),
            TransitionError::NotAllowed(_)
            | TransitionError::NoAttempt(_)
            | TransitionError::NotLocked(_)
            | TransitionError::RowCount { .. }
            | TransitionError::Unreadable(_) => Self::Refused {
                problem: "the change was not written; nothing was changed".to_owned(),
                source: Box::new(error),
            },
        }
    }
}

/// The name comes from MySQL's message: `Unknown database 'NAME'`.
fn missing_database(error: &sqlx::Error) -> String {
    let name = error
        .as_database_error()
        .and_then(|cause| cause.message().split('\'').nth(1))
        .unwrap_or("NAME");
    format!(
        "the database {name} does not exist.\n\
         To do: as a user who may, run: CREATE DATABASE `{name}` CHARACTER SET utf8mb4; then `returnsctl migrate`"
    )
}

fn failed_migration(file: &str, cause: &sqlx::Error) -> String {
    let advice = match mysql_number(cause) {
        Some(TRIGGER_NEEDS_SUPER) => {
            "set log_bin_trust_function_creators = 1 on the server or migrate as a user with SUPER"
        }
        _ => "repair the cause",
    };
    format!(
        "migration {file} failed; it changed nothing, the migrations before it stay.\n\
         To do: {advice}, then run `returnsctl migrate` again"
    )
}

fn interrupted_migration(version: i64, file: &str) -> String {
    format!(
        "an earlier run was interrupted inside migration {file}; whether its one statement took effect is not recorded.\n\
         To do: compare the file with SHOW CREATE TABLE or SHOW TRIGGERS, then run one of:\n  \
         it took effect:    returnsctl migrate --took-effect {version}\n  \
         it had no effect:  returnsctl migrate --had-no-effect {version}"
    )
}

fn held_lock(waited_secs: u64, holder: Option<u64>) -> String {
    let holder = match holder {
        Some(id) => format!(
            "MySQL connection {id} (SHOW PROCESSLIST shows it; KILL {id} if its program is gone)"
        ),
        None => "a connection that has ended since".to_owned(),
    };
    format!(
        "another `returnsctl migrate` has held the lock of this database for {waited_secs} s: {holder}.\n\
         To do: wait for it and run again; nothing was changed by this run"
    )
}

impl From<KafkaError> for CtlError {
    fn from(error: KafkaError) -> Self {
        let away = error.rdkafka_error_code().is_some_and(|code| {
            matches!(
                code,
                RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::AllBrokersDown
                    | RDKafkaErrorCode::Resolve
                    | RDKafkaErrorCode::OperationTimedOut
                    | RDKafkaErrorCode::RequestTimedOut
                    | RDKafkaErrorCode::MessageTimedOut
                    | RDKafkaErrorCode::BrokerNotAvailable
            )
        });
        if away {
            Self::Unreachable {
                server: "Kafka".to_owned(),
                source: Box::new(error),
            }
        } else {
            Self::Refused {
                problem: "Kafka refused a request".to_owned(),
                source: Box::new(error),
            }
        }
    }
}
