//! How long to wait before trying again: a pure function of the attempt number and a random fraction.

use std::time::Duration;

use rand::RngExt;

/// Full jitter: a uniform share of `base × 2^attempt`, at most `cap`.
///
/// Full jitter spreads a herd best for the same total work
/// (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).
pub fn full_jitter(attempt: u32, base: Duration, cap: Duration) -> Duration {
    ceiling(attempt, base, cap).mul_f64(rand::rng().random_range(0.0..=1.0))
}

fn ceiling(attempt: u32, base: Duration, cap: Duration) -> Duration {
    let factor = 2_u32.saturating_pow(attempt);
    base.saturating_mul(factor).min(cap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let (base, cap) = (Duration::from_millis(5), Duration::from_millis(100));
        let millis: Vec<u128> = [0, 1, 4, 5, 31, u32::MAX]
            .map(|attempt| ceiling(attempt, base, cap).as_millis())
            .to_vec();
        assert_eq!(millis, [5, 10, 80, 100, 100, 100]);
    }

    #[test]
    fn jitter_stays_below_the_ceiling() {
        let (base, cap) = (Duration::from_millis(5), Duration::from_millis(100));
        assert!((0..1_000).all(|n| full_jitter(n % 10, base, cap) <= ceiling(n % 10, base, cap)));
    }
}
