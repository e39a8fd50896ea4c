//! A customer's or admin's HTTP client.

use std::net::SocketAddr;

use anyhow::Context;
use serde_json::{Value, json};

use crate::secrets::{self, Reader, Secrets};

#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    token: String,
}

/// Status and JSON body of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Client {
    /// No program may say its token from now on.
    pub fn new(token: &str) -> Self {
        secrets::know(Secrets::one("a client's token", token));
        Self {
            http: reqwest::Client::new(),
            token: token.to_owned(),
        }
    }

    /// `POST /returns`. An error means that no answer came.
    ///
    /// # Errors
    /// The connection failed or broke.
    pub async fn file(
        &self,
        api: SocketAddr,
        order: i64,
        key: Option<&str>,
    ) -> anyhow::Result<Answer> {
        let mut request = self
            .http
            .post(format!("http://{api}/returns"))
            .bearer_auth(&self.token)
            .json(&json!({"order_id": order, "reason": "does not fit"}));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        read(request).await
    }

    /// `GET` a path of the API.
    ///
    /// # Errors
    /// The connection failed or broke.
    pub async fn get(&self, api: SocketAddr, path: &str) -> anyhow::Result<Answer> {
        read(
            self.http
                .get(format!("http://{api}{path}"))
                .bearer_auth(&self.token),
        )
        .await
    }

    /// The status of a return as its customer sees it.
    ///
    /// # Errors
    /// The connection failed, or the answer has no status.
    pub async fn status(&self, api: SocketAddr, return_id: i64) -> anyhow::Result<String> {
        let answer = self.get(api, &format!("/returns/{return_id}")).await?;
        let status = answer.body["status"].as_str();
        Ok(status.with_context(|| format!("{answer:?}"))?.to_owned())
    }
}

impl Answer {
    /// The id of the return that was filed, if it was.
    pub fn return_id(&self) -> Option<i64> {
        (self.status == 201).then(|| self.body["return_id"].as_i64())?
    }
}

async fn read(request: reqwest::RequestBuilder) -> anyhow::Result<Answer> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let text = response.text().await?;
    secrets::assert_none_in("an answer of the api", &text, Reader::Owner);
    Ok(Answer {
        status,
        body: serde_json::from_str(&text)?,
    })
}
