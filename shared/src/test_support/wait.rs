//! The one way in which tests wait: poll a condition until it holds or a deadline passes.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// The condition did not hold before the deadline.
#[derive(Debug, thiserror::Error)]
#[error("not within {deadline:?}: {what}")]
pub struct NotInTime {
    what: String,
    deadline: Duration,
}

impl NotInTime {
    fn new(what: &str, deadline: Duration) -> Self {
        let what = what.to_owned();
        Self { what, deadline }
    }
}

/// The result of one check: whether the condition holds, and the value to return then.
pub trait Condition {
    type Value;
    fn value(self) -> Option<Self::Value>;
}

impl Condition for bool {
    type Value = ();
    fn value(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Condition for Option<T> {
    type Value = T;
    fn value(self) -> Option<T> {
        self
    }
}

/// Waits until `check` returns `true` or `Some`.
///
/// # Panics
/// That does not happen before the deadline.
pub async fn until<C: Condition, F: Future<Output = C>>(
    what: &str,
    deadline: Duration,
    mut check: impl FnMut() -> F,
) -> C::Value {
    let begun = Instant::now();
    let checks = async {
        loop {
            if let Some(value) = check().await.value() {
                return value;
            }
            sleep(pause(begun)).await;
        }
    };
    let value = timeout(deadline, checks).await;
    value.unwrap_or_else(|_| panic!("{}", NotInTime::new(what, deadline)))
}

/// As [`until`], for a check that can fail.
///
/// # Errors
/// The first error of `check`, or the deadline passes.
pub async fn try_until<C: Condition, E: From<NotInTime>>(
    what: &str,
    deadline: Duration,
    mut check: impl AsyncFnMut() -> Result<C, E>,
) -> Result<C::Value, E> {
    let begun = Instant::now();
    let checks = async {
        loop {
            if let Some(value) = check().await?.value() {
                return Ok(value);
            }
            sleep(pause(begun)).await;
        }
    };
    let value = timeout(deadline, checks).await;
    value.unwrap_or_else(|_| Err(NotInTime::new(what, deadline).into()))
}

/// The longer the wait, the rarer the checks: many tests wait at the same time, and each check costs the servers work.
fn pause(begun: Instant) -> Duration {
    (begun.elapsed() / 20).clamp(Duration::from_millis(3), Duration::from_millis(50))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_returns_the_value_or_names_what_it_waited_for() {
        let mut checks = 0;
        let third = || {
            checks += 1;
            std::future::ready((checks == 3).then_some(checks))
        };
        assert_eq!(until("it", Duration::from_secs(1), third).await, 3);

        let never = try_until("a condition", Duration::from_secs(1), async || {
            Ok::<_, NotInTime>(false)
        });
        let error = never.await.expect_err("it never holds").to_string();
        assert_eq!(error, "not within 1s: a condition");
        let stuck = try_until("an answer", Duration::from_secs(1), async || {
            std::future::pending::<Result<bool, NotInTime>>().await
        });
        assert!(stuck.await.is_err());
    }
}
