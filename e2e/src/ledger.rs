//! The ledger of the simulated gateway or of `returnsctl dev-gateway`: every line is one effect, unless it was declined.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rust_decimal::Decimal;
use serde_json::Value;

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The idempotency key of the attempt.
    pub key: String,
    pub amount: Decimal,
    pub currency: String,
    /// Accepted but not paid.
    pub declined: bool,
    /// Paid, and taken back later.
    pub reversed: bool,
}

impl Line {
    /// Whether the customer has the money.
    pub fn stands(&self) -> bool {
        !self.declined && !self.reversed
    }
}

/// Every line, in order; none when there is no ledger yet.
///
/// # Errors
/// The file cannot be read, or a line misses a field.
pub fn read(path: &Path) -> anyhow::Result<Vec<Line>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(path)?;
    // The last line may be incomplete.
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let mut lines: Vec<(Option<String>, Line)> = Vec::new();
    for text in text[..whole].lines() {
        let record: Value = serde_json::from_str(text)?;
        let Some(id) = record["reversed"].as_str() else {
            lines.push((record["id"].as_str().map(str::to_owned), parse(&record)?));
            continue;
        };
        let paid = lines
            .iter_mut()
            .find(|(paid, _)| paid.as_deref() == Some(id));
        paid.context("a reversal of no payment")?.1.reversed = true;
    }
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}

fn parse(record: &Value) -> anyhow::Result<Line> {
    let field = |name: &str| {
        let text = record[name].as_str();
        text.with_context(|| format!("no {name}: {record}"))
    };
    Ok(Line {
        key: field("reference").or_else(|_| field("key"))?.to_owned(),
        amount: field("amount")?.parse()?,
        currency: field("currency")?.to_owned(),
        declined: record["declined"] == true,
        reversed: false,
    })
}

/// The number of effects that still stand, by idempotency key.
///
/// # Errors
/// As [`read`].
pub fn effects(path: &Path) -> anyhow::Result<HashMap<String, u32>> {
    Ok(count(read(path)?.into_iter().filter(Line::stands)))
}

/// The number of effects by idempotency key, in several ledgers together.
///
/// # Errors
/// As [`read`].
pub fn effects_in_all(paths: &[PathBuf]) -> anyhow::Result<HashMap<String, u32>> {
    let lines = read_all(paths)?.into_iter();
    Ok(count(lines.filter(Line::stands)))
}

/// Every line of several ledgers.
///
/// # Errors
/// As [`read`].
pub fn read_all(paths: &[PathBuf]) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for path in paths {
        lines.extend(read(path)?);
    }
    Ok(lines)
}

/// How often the provider accepted a key, paid or not.
///
/// # Errors
/// As [`read`].
pub fn lines(path: &Path) -> anyhow::Result<HashMap<String, u32>> {
    Ok(count(read(path)?.into_iter()))
}

fn count(lines: impl Iterator<Item = Line>) -> HashMap<String, u32> {
    let mut counts = HashMap::new();
    for line in lines {
        *counts.entry(line.key).or_default() += 1;
    }
    counts
}
