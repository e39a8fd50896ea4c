//! A part of the overview: what was read, how old it is, and why it could not be read again.

use std::time::Instant;

use serde::{Serialize, Serializer};

use crate::error::CtlError;
use crate::text::span;

/// See the module. The names are those of `--json`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Part<T> {
    /// `None` if it was never read.
    pub(crate) value: Option<T>,
    /// Why the last read failed; `value` is then that of an earlier one.
    pub(crate) trouble: Option<String>,
    #[serde(rename = "age_secs", serialize_with = "age")]
    pub(crate) read_at: Instant,
}

fn age<S: Serializer>(read_at: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
    read_at.elapsed().as_secs_f64().serialize(serializer)
}

impl<T> Part<T> {
    pub(crate) fn unreadable(trouble: impl Into<String>) -> Self {
        Self {
            value: None,
            trouble: Some(trouble.into()),
            read_at: Instant::now(),
        }
    }

    /// The value of `older`, if this one has none.
    pub(super) fn or_older(self, older: Option<Self>) -> Self {
        match older {
            Some(older) if self.value.is_none() => Self {
                trouble: self.trouble,
                ..older
            },
            _ => self,
        }
    }

    /// For a person: why there is no value, or how old it is.
    pub(crate) fn trouble_text(&self) -> Option<String> {
        let trouble = self.trouble.as_ref()?;
        Some(if self.value.is_some() {
            let age = span(self.read_at.elapsed().as_secs_f64());
            format!("OLD, of {age} ago: {trouble}")
        } else {
            format!("UNKNOWN: {trouble}")
        })
    }
}

impl<T> From<Result<T, CtlError>> for Part<T> {
    fn from(read: Result<T, CtlError>) -> Self {
        match read {
            Ok(value) => Self {
                value: Some(value),
                trouble: None,
                read_at: Instant::now(),
            },
            Err(error) => Self::unreadable(reason(&error)),
        }
    }
}

/// The error and its causes in one line.
fn reason(error: &CtlError) -> String {
    let report = error.report();
    let lines = report.lines().map(str::trim);
    let lines = lines.take_while(|line| !line.starts_with("To do"));
    let text: Vec<&str> = lines
        .map(|line| line.trim_start_matches("because: "))
        .collect();
    let text = text.join(": ");
    match text.split_once("]: ") {
        Some((label, text)) if label.starts_with("error[") => text.to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_value_stays_until_a_new_one_is_read() {
        let read = |value| Part::from(Ok::<i32, CtlError>(value));
        let away = || {
            Part::from(Err(CtlError::Unreachable {
                server: "Kafka at h:1".to_owned(),
                source: "refused".into(),
            }))
        };
        let first: Part<i32> = away();
        assert_eq!(
            first.trouble_text().as_deref(),
            Some("UNKNOWN: cannot reach Kafka at h:1: refused")
        );
        let second = read(1).or_older(Some(first));
        assert_eq!((second.value, second.trouble_text()), (Some(1), None));
        let third = away().or_older(Some(second));
        assert_eq!(third.value, Some(1));
        let text = third.trouble_text().expect("trouble");
        assert!(text.starts_with("OLD, of 0.0 s ago: cannot"), "{text}");
        assert_eq!(read(2).or_older(Some(third)).value, Some(2));
    }
}
