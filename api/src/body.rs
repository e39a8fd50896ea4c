//! The body of a request, which nobody receives before it is known that the caller may send it.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use warp::http::{HeaderMap, header};
use warp::{Filter, Rejection};

use crate::error::ApiError;
use crate::server::RequestContext;

/// The largest body that any endpoint takes: a reason of 1000 characters, each escaped as JSON, fits.
const BODY_MAX: usize = 16 * 1024;

/// A body that is still with the client: one that expects `100 Continue` is told to send it by [`RequestBody::read`].
pub(crate) struct RequestBody {
    headers: HeaderMap,
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send>>,
    deadline: Duration,
    context: RequestContext,
}

/// Hands the body to a handler, which has `deadline` to read it.
pub(crate) fn body(
    deadline: Duration,
) -> impl Filter<Extract = (RequestBody,), Error = Rejection> + Clone {
    warp::header::headers_cloned()
        .and(warp::ext::get::<RequestContext>())
        .and(warp::body::stream())
        .map(move |headers, context, stream| RequestBody::new(headers, context, stream, deadline))
}

impl RequestBody {
    fn new<B: Buf>(
        headers: HeaderMap,
        context: RequestContext,
        stream: impl Stream<Item = Result<B, warp::Error>> + Send + 'static,
        deadline: Duration,
    ) -> Self {
        let bytes = |mut chunk: B| chunk.copy_to_bytes(chunk.remaining());
        Self {
            headers,
            chunks: Box::pin(stream.map(move |chunk| chunk.map(bytes))),
            deadline,
            context,
        }
    }

    /// All of it. Call it last, when nothing but the body can still be wrong.
    ///
    /// # Errors
    /// Larger than [`BODY_MAX`], announced or not; compressed; not there within the deadline; broken off.
    pub(crate) async fn read(self) -> Result<Bytes, ApiError> {
        self.is_acceptable()?;
        let deadline = self.deadline;
        let context = self.context.clone();
        let body = tokio::time::timeout(deadline, self.collect())
            .await
            .map_err(|_| ApiError::RequestTimeout)??;
        context.progress.body_was_read();
        Ok(body)
    }

    /// What can be told by the headers alone.
    fn is_acceptable(&self) -> Result<(), ApiError> {
        let encoding = self.headers.get(header::CONTENT_ENCODING);
        if encoding.is_some_and(|name| !name.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(ApiError::UnsupportedContentEncoding);
        }
        let announced = self.headers.get(header::CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse().ok());
        if announced.is_some_and(|length: u64| length > BODY_MAX as u64) {
            return Err(TOO_LARGE);
        }
        Ok(())
    }

    async fn collect(mut self) -> Result<Bytes, ApiError> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunks.next().await {
            let chunk = chunk.map_err(|_| ApiError::BadRequest("the body broke off".to_owned()))?;
            if body.len() + chunk.len() > BODY_MAX {
                return Err(TOO_LARGE);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
}

const TOO_LARGE: ApiError = ApiError::BodyTooLarge { limit: BODY_MAX };

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").finish_non_exhaustive()
    }
}
