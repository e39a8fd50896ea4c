//! The simulated gateway's ledger: every line is one effect.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

/// Idempotency key to number of effects; none when there is no ledger yet.
///
/// # Errors
/// The file cannot be read, or a line names no key.
pub fn effects(path: &Path) -> anyhow::Result<HashMap<String, u32>> {
    let mut effects = HashMap::new();
    if !path.exists() {
        return Ok(effects);
    }
    for line in std::fs::read_to_string(path)?.lines() {
        let record: Value = serde_json::from_str(line)?;
        let key = record["key"]
            .as_str()
            .with_context(|| format!("no key: {line}"))?;
        *effects.entry(key.to_owned()).or_default() += 1;
    }
    Ok(effects)
}
