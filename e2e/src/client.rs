//! A customer's or admin's HTTP client.

use std::net::SocketAddr;

use anyhow::Context;
use serde_json::{Value, json};

use crate::secrets::{self, Audience, Secrets};

#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    token: String,
}

/// Status and JSON body of a response.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiResponse {
    pub status: u16,
    /// The header `Retry-After`.
    pub retry_after: Option<String>,
    pub body: Value,
}

impl Client {
    /// From now on no program may write its token.
    pub fn new(token: &str) -> Self {
        secrets::register(Secrets::one("a client's token", token));
        Self {
            http: reqwest::Client::new(),
            token: token.to_owned(),
        }
    }

    /// `POST /returns`. An error means that no response came.
    ///
    /// # Errors
    /// The connection failed or broke.
    pub async fn file(
        &self,
        api: SocketAddr,
        order: i64,
        key: Option<&str>,
    ) -> anyhow::Result<ApiResponse> {
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
    pub async fn get(&self, api: SocketAddr, path: &str) -> anyhow::Result<ApiResponse> {
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
    /// The connection failed, or the response has no status.
    pub async fn status(&self, api: SocketAddr, return_id: i64) -> anyhow::Result<String> {
        let response = self.get(api, &format!("/returns/{return_id}")).await?;
        let status = response.body["status"].as_str();
        Ok(status.with_context(|| format!("{response:?}"))?.to_owned())
    }
}

impl ApiResponse {
    /// The id of the return, if it was filed.
    pub fn return_id(&self) -> Option<i64> {
        (self.status == 201).then(|| self.body["return_id"].as_i64())?
    }
}

async fn read(request: reqwest::RequestBuilder) -> anyhow::Result<ApiResponse> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let retry_after = response.headers().get("retry-after");
    let retry_after = retry_after.and_then(|value| Some(value.to_str().ok()?.to_owned()));
    let text = response.text().await?;
    secrets::assert_none_in("a response of the api", &text, Audience::Owner);
    Ok(ApiResponse {
        status,
        retry_after,
        body: serde_json::from_str(&text)?,
    })
}
