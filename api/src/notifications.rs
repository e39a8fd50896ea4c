//! Notifications of the payment provider: something has happened to a refund.
//!
//! They are hints. A notification only makes a refund due for a look-up by the refund consumer; it changes no status, sends
//! nothing and pays nothing. They have one connection of their own, so that a provider that sends very many leaves the
//! others to filings.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use shared::domain::refund::notification::{BadSignature, Notification, SECRET_MIN_BYTES, verify};
use shared::runtime::clock::unix_secs;
use shared::runtime::db::{Database, DbError};

use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::store;

/// For one statement on one row. After it the provider tries again later.
const DEADLINE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Args)]
pub struct NotificationArgs {
    /// The secret with which the payment provider signs `POST /gateway/notifications`, at least 32 bytes. Unset: the path
    /// does not exist, and reversed refunds are found by the refund consumer's own look-ups only.
    #[arg(long, env = "GATEWAY_NOTIFICATION_SECRET", hide_env_values = true)]
    pub gateway_notification_secret: Option<SecretString>,
}

impl NotificationArgs {
    pub(crate) fn problem(&self) -> Option<String> {
        let secret = self.gateway_notification_secret.as_ref()?;
        (secret.expose_secret().len() < SECRET_MIN_BYTES).then(|| {
            format!("GATEWAY_NOTIFICATION_SECRET must have at least {SECRET_MIN_BYTES} bytes")
        })
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Notifications {
    secret: SecretString,
    db: Database,
    metrics: Arc<Metrics>,
}

impl Notifications {
    /// `None` without a secret.
    pub(crate) fn new(
        args: &NotificationArgs,
        db: &Database,
        metrics: &Arc<Metrics>,
    ) -> Option<Self> {
        Some(Self {
            secret: args.gateway_notification_secret.clone()?,
            db: db.share(1).acquire_timeout(DEADLINE),
            metrics: Arc::clone(metrics),
        })
    }

    /// # Errors
    /// It does not come from the provider, or not now.
    pub(crate) fn verify(&self, signature: &str, body: &[u8]) -> Result<(), BadSignature> {
        let verified = verify(&self.secret, signature, unix_secs(), body);
        verified.inspect_err(|_| self.count("refused"))
    }

    /// Makes the refund due for a look-up. That an unknown refund was named is counted, and not reported to the sender.
    pub(crate) async fn make_due(&self, notification: Notification) -> Result<(), ApiError> {
        let made_due = self.db.run("make_refund_due", DEADLINE, move |conn| {
            Box::pin(async move {
                let due = store::make_refund_due(conn, &notification).await;
                due.map_err(DbError::from)
            })
        });
        self.count(if made_due.await? { "due" } else { "unknown" });
        Ok(())
    }

    fn count(&self, result: &str) {
        self.metrics
            .notifications
            .with_label_values(&[result])
            .inc();
    }
}
