//! A person with the role admin, who decides with `returnsctl`.

use crate::program::{Env, run};

/// The environment of this person's commands, made from that of the system.
pub async fn as_admin(env: &Env, user: &str) -> anyhow::Result<Env> {
    let mint = ["token", "mint", "--user", user, "--role", "admin"];
    let token = run("returnsctl", &mint, env).await?;
    let mut env = env.clone();
    env.insert("OPERATOR_TOKEN".to_owned(), token.trim().to_owned());
    Ok(env)
}

/// Requests a second attempt to refund a return, with the environment of an admin.
pub async fn retry_first_attempt(env: &Env, return_id: i64) -> anyhow::Result<()> {
    let id = return_id.to_string();
    let attempt = ["--attempt", "1", "--reason", "again"];
    let retry = [&["refunds", "retry", &id][..], &attempt].concat();
    run("returnsctl", &retry, env).await?;
    Ok(())
}
