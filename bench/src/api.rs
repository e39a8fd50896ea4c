//! An api for one run, without rate limits: all requests come from one address as fast as possible.

use e2e::program::{Env, Program};
use shared::test_support::TestDb;

use crate::tokens::Keys;

/// With additional settings.
pub(crate) async fn start(
    db: &TestDb,
    keys: &Keys,
    more: &[(&str, String)],
) -> anyhow::Result<Program> {
    let usual = [
        ("DATABASE_URL", db.url().to_owned()),
        ("AUTH_KEYS_FILE", keys.file().to_string_lossy().into_owned()),
        ("API_LISTEN", "127.0.0.1:0".to_owned()),
        ("OPS_LISTEN", "127.0.0.1:0".to_owned()),
        ("RATE_PER_ADDRESS", "0".to_owned()),
        ("RATE_PER_CALLER", "0".to_owned()),
    ];
    let settings = usual.iter().chain(more);
    let env: Env = settings
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    Program::start("returns-api", &env).await
}
