//! Sends signed notifications about refunds, as docs/GATEWAY.md has them.

use std::time::Duration;

use reqwest::{Client, Url};
use secrecy::SecretString;
use serde_json::json;
use shared::domain::refund::notification::{SIGNATURE_HEADER, sign};
use shared::runtime::clock::unix_secs;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Where notifications go, and who sends them.
#[derive(Debug, clap::Args)]
pub(super) struct NotifierArgs {
    /// Send a signed notification of each reversal to this address: `POST /gateway/notifications` of the api.
    #[arg(long, env = "DEV_GATEWAY_NOTIFY_URL", value_name = "URL")]
    notify_url: Option<Url>,

    /// The secret of the signature, as the api has it.
    #[arg(
        long,
        env = "GATEWAY_NOTIFICATION_SECRET",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    gateway_notification_secret: Option<SecretString>,

    /// The name of this provider account in notifications, as in GATEWAY_NAME of the refund consumer.
    #[arg(long, value_name = "NAME", default_value = "dev")]
    notify_as: String,
}

#[derive(Debug)]
pub(super) struct Notifier {
    client: Client,
    url: Url,
    secret: SecretString,
    gateway: String,
}

impl Notifier {
    /// `None` without an address.
    ///
    /// # Errors
    /// There is no secret to sign with.
    pub(super) fn new(args: NotifierArgs) -> Result<Option<Self>, String> {
        let Some(url) = args.notify_url else {
            return Ok(None);
        };
        let secret = args.gateway_notification_secret;
        let secret = secret.ok_or("--notify-url needs GATEWAY_NOTIFICATION_SECRET")?;
        Ok(Some(Self {
            client: Client::new(),
            url,
            secret,
            gateway: args.notify_as,
        }))
    }

    /// Whether the notification was accepted.
    pub(super) async fn notify(&self, reference: &str) -> bool {
        let body = json!({"gateway": self.gateway, "reference": reference}).to_string();
        let signature = sign(&self.secret, unix_secs(), body.as_bytes());
        let request = self
            .client
            .post(self.url.clone())
            .timeout(TIMEOUT)
            .header("content-type", "application/json")
            .header(SIGNATURE_HEADER, signature)
            .body(body);
        let response = request.send().await;
        response.is_ok_and(|response| response.status().is_success())
    }
}
