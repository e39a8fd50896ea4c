//! The body of a request, which is read only when an endpoint has found nothing else wrong with the request.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use warp::http::{HeaderMap, header};

use super::context::RequestContext;
use crate::error::ApiError;

/// The largest body that any endpoint accepts: a reason of 1000 characters, each escaped as JSON, fits.
const BODY_MAX: usize = 16 * 1024;

/// A body that the client has not sent yet. A client that expects `100 Continue` gets it from [`RequestBody::read`].
pub(super) struct RequestBody {
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send>>,
}

impl RequestBody {
    pub(super) fn new<B: Buf>(
        stream: impl Stream<Item = Result<B, warp::Error>> + Send + 'static,
    ) -> Self {
        let bytes = |mut chunk: B| chunk.copy_to_bytes(chunk.remaining());
        Self {
            chunks: Box::pin(stream.map(move |chunk| chunk.map(bytes))),
        }
    }

    /// Reads the whole body. Call it last, when only the body can still be wrong.
    ///
    /// # Errors
    /// Larger than [`BODY_MAX`], by its header or in fact; compressed; not complete within the deadline; interrupted.
    pub(super) async fn read(
        self,
        headers: &HeaderMap,
        context: &RequestContext,
        deadline: Duration,
    ) -> Result<Bytes, ApiError> {
        check_headers(headers)?;
        let body = tokio::time::timeout(deadline, self.collect())
            .await
            .map_err(|_| ApiError::RequestTimeout)??;
        context.set_body_read();
        Ok(body)
    }

    async fn collect(mut self) -> Result<Bytes, ApiError> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunks.next().await {
            let interrupted = |_| ApiError::BadRequest("the body was interrupted".to_owned());
            let chunk = chunk.map_err(interrupted)?;
            if body.len() + chunk.len() > BODY_MAX {
                return Err(TOO_LARGE);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
}

const TOO_LARGE: ApiError = ApiError::BodyTooLarge { limit: BODY_MAX };

fn check_headers(headers: &HeaderMap) -> Result<(), ApiError> {
    let encoding = headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|name| !name.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(ApiError::UnsupportedContentEncoding);
    }
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > BODY_MAX as u64) {
        return Err(TOO_LARGE);
    }
    Ok(())
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").finish_non_exhaustive()
    }
}
