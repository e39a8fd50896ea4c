//! How many requests one address or one caller may make.
//!
//! Must stay true: memory is bounded whoever asks. Who does not fit any more is forgotten and has a full burst when it asks
//! again, so a limit gives way under more askers than are remembered; it never refuses one for another's sake.

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

/// Seconds of the rate that may come at once: a page that loads asks for several things.
const BURST_SECS: u32 = 2;

/// Askers remembered at a time, about 200 bytes each.
const REMEMBERED: usize = 100_000;

type Bucket = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;

#[derive(Debug)]
pub struct RateLimit<K> {
    rate: NonZeroU32,
    buckets: Cache<K, Arc<Bucket>>,
}

/// Where an asker stands after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    rate: NonZeroU32,
    remaining: u32,
    /// Seconds until the next request is let through, if this one was not.
    retry_after: Option<u32>,
}

impl<K: Hash + Eq + Clone> RateLimit<K> {
    /// `None` for a rate of 0: no limit.
    pub(crate) fn per_second(rate: u32) -> Option<Self> {
        Some(Self {
            rate: NonZeroU32::new(rate)?,
            buckets: Cache::new(REMEMBERED),
        })
    }

    /// Counts a request.
    pub(crate) fn take(&self, asker: &K) -> Standing {
        let quota = Quota::per_second(self.rate).allow_burst(burst(self.rate));
        let fresh = || Ok(Arc::new(RateLimiter::direct(quota).with_middleware()));
        let Ok::<_, Infallible>(bucket) = self.buckets.get_or_insert_with(asker, fresh);
        let (remaining, retry_after) = match bucket.check() {
            Ok(state) => (state.remaining_burst_capacity(), None),
            Err(until) => {
                let wait = until.wait_time_from(DefaultClock::default().now());
                let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX - 1);
                (0, Some(seconds + 1))
            }
        };
        Standing {
            rate: self.rate,
            remaining,
            retry_after,
        }
    }
}

fn burst(rate: NonZeroU32) -> NonZeroU32 {
    rate.saturating_mul(NonZeroU32::new(BURST_SECS).expect("not 0"))
}

impl Standing {
    /// # Errors
    /// [`ApiError::RateLimited`] if the request was one too many.
    pub(crate) fn admit(self) -> Result<(), ApiError> {
        match self.retry_after {
            Some(retry_after) => Err(ApiError::RateLimited { retry_after }),
            None => Ok(()),
        }
    }

    /// Tells the caller, in the fields of draft-ietf-httpapi-ratelimit-headers-10: of a quota of `q` in `w` seconds `r`
    /// is left, and all of it again in `t` seconds.
    pub(crate) fn tell(self, headers: &mut HeaderMap) {
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
    fn a_burst_is_let_through_and_the_rest_told_to_wait() {
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
        refused.tell(&mut headers);
        assert_eq!(headers["ratelimit-policy"], r#""caller";q=2;w=2"#);
        assert_eq!(headers["ratelimit"], r#""caller";r=0;t=2"#);
    }

    #[test]
    fn a_rate_of_0_is_no_limit() {
        assert!(RateLimit::<i64>::per_second(0).is_none());
    }

    #[test]
    fn whoever_asks_once_is_forgotten() {
        let limit = RateLimit::per_second(1).expect("a limit");
        for asker in 0..3 * REMEMBERED {
            limit.take(&asker);
        }
        assert!(limit.buckets.len() <= REMEMBERED);
    }
}
