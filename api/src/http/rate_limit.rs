//! The rate limit of one address or one caller.
//!
//! Must stay true: memory is bounded. If there are more clients than fit into the cache, the oldest are removed and get a
//! full burst when they return. So the limit gets weaker under very many clients, but it never refuses a client because
//! of another one.

use std::convert::Infallible;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use quick_cache::sync::Cache;
use warp::http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::ApiError;

/// A burst is the rate of this many seconds, because a page that loads sends several requests at once.
const BURST_SECS: u32 = 2;

/// Clients in the cache, about 200 bytes each.
const CLIENTS_MAX: usize = 100_000;

type Bucket = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;

#[derive(Debug)]
pub(crate) struct RateLimit<K> {
    rate: NonZeroU32,
    buckets: Cache<K, Arc<Bucket>>,
}

/// The decision about one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateDecision {
    rate: NonZeroU32,
    remaining: u32,
    /// Seconds until the next request is allowed, if this one was refused.
    retry_after: Option<u32>,
}

impl<K: Hash + Eq + Clone> RateLimit<K> {
    /// `None` for a rate of 0: no limit.
    pub(crate) fn per_second(rate: u32) -> Option<Self> {
        Some(Self {
            rate: NonZeroU32::new(rate)?,
            buckets: Cache::new(CLIENTS_MAX),
        })
    }

    /// Counts a request.
    pub(crate) fn take(&self, client: &K) -> RateDecision {
        let quota = Quota::per_second(self.rate).allow_burst(burst(self.rate));
        let fresh = || Ok(Arc::new(RateLimiter::direct(quota).with_middleware()));
        let Ok::<_, Infallible>(bucket) = self.buckets.get_or_insert_with(client, fresh);
        let (remaining, retry_after) = match bucket.check() {
            Ok(state) => (state.remaining_burst_capacity(), None),
            Err(until) => {
                let wait = until.wait_time_from(DefaultClock::default().now());
                let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX - 1);
                (0, Some(seconds + 1))
            }
        };
        RateDecision {
            rate: self.rate,
            remaining,
            retry_after,
        }
    }
}

fn burst(rate: NonZeroU32) -> NonZeroU32 {
    rate.saturating_mul(NonZeroU32::new(BURST_SECS).expect("not 0"))
}

impl RateDecision {
    /// # Errors
    /// [`ApiError::RateLimited`] if the request is above the limit.
    pub(crate) fn admit(self) -> Result<(), ApiError> {
        match self.retry_after {
            Some(retry_after) => Err(ApiError::RateLimited { retry_after }),
            None => Ok(()),
        }
    }

    /// Writes the headers of draft-ietf-httpapi-ratelimit-headers-10: of a quota of `q` in `w` seconds, `r` is left, and
    /// the whole quota is available again in `t` seconds.
    pub(super) fn write_headers(self, headers: &mut HeaderMap) {
        let quota = burst(self.rate).get();
        let full_again = (quota - self.remaining.min(quota)).div_ceil(self.rate.get());
        for (name, value) in [
            (
                "ratelimit-policy",
                format!("\"caller\";q={quota};w={BURST_SECS}"),
            ),
            (
                "ratelimit",
                format!("\"caller\";r={};t={full_again}", self.remaining),
            ),
        ] {
            let value = HeaderValue::from_str(&value).expect("visible ASCII");
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_the_next_request_is_refused() {
        let limit = RateLimit::per_second(1).expect("a limit");
        assert_eq!(limit.take(&7).remaining, 1);
        assert_eq!(limit.take(&7).admit(), Ok(()));
        let refused = limit.take(&7);
        assert_eq!(
            refused.admit(),
            Err(ApiError::RateLimited { retry_after: 1 })
        );
        assert_eq!(limit.take(&8).admit(), Ok(()));
        let mut headers = HeaderMap::new();
        refused.write_headers(&mut headers);
        assert_eq!(headers["ratelimit-policy"], r#""caller";q=2;w=2"#);
        assert_eq!(headers["ratelimit"], r#""caller";r=0;t=2"#);
    }

    #[test]
    fn a_rate_of_0_is_no_limit() {
        assert!(RateLimit::<i64>::per_second(0).is_none());
    }

    #[test]
    fn clients_that_send_one_request_are_removed_from_the_cache() {
        let limit = RateLimit::per_second(1).expect("a limit");
        for client in 0..3 * CLIENTS_MAX {
            limit.take(&client);
        }
        assert!(limit.buckets.len() <= CLIENTS_MAX);
    }
}
