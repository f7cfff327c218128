//! When a call is tried again, and after how long.

use std::time::{Duration, SystemTime};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Longest pause that grows by itself; a server may ask for more.
const LONGEST: Duration = Duration::from_secs(60);
/// Longest pause that a server is granted.
const GRANTED: Duration = Duration::from_secs(600);

/// Why a call gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// What happened, as the end of a sentence that begins with the server.
    pub(super) reason: String,
    /// Whether another try may go better.
    pub(super) again: bool,
    /// How long the server asks to be left alone.
    pub(super) after: Option<Duration>,
}

impl Failure {
    /// One that may pass.
    pub(super) fn passing(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), again: true, after: None }
    }

    /// One that will not.
    pub(super) fn lasting(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), again: false, after: None }
    }
}

/// How often and how fast calls are repeated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Tries after the first.
    pub(super) retries: usize,
    /// The first pause, about; each further one is twice as long.
    pub(super) base: Duration,
}

impl Patience {
    /// The pause before try `retry`, counted from 1: between half and all of a time that doubles, so
    /// that callers who failed together do not come back together; never less than the server asks.
    pub(super) fn pause(&self, retry: usize, after: Option<Duration>, seed: u64) -> Duration {
        let doubled = self.base.saturating_mul(1 << (retry - 1).min(20)).min(LONGEST);
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ (retry as u64).rotate_left(32));
        let share = 0.5 + 0.5 * f64::from(random.next_u32()) / f64::from(u32::MAX);
        doubled.mul_f64(share).max(after.unwrap_or_default().min(GRANTED))
    }
}

/// The value of a `Retry-After` header: seconds, or a date.
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value.trim()).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_with_jitter_and_obey_the_server() {
        let patience = Patience { retries: 9, base: Duration::from_millis(500) };
        for retry in 1..=9 {
            let most = Duration::from_millis(500 << (retry - 1)).min(LONGEST);
            let pauses: Vec<Duration> =
                (0..50).map(|seed| patience.pause(retry, None, seed)).collect();
            assert!(pauses.iter().all(|p| *p >= most / 2 && *p <= most), "{pauses:?}");
            assert!(pauses.iter().any(|p| *p != pauses[0]));
            assert_eq!(patience.pause(retry, None, 7), pauses[7], "seeded");
        }
        let asked = Some(Duration::from_secs(30));
        assert_eq!(patience.pause(1, asked, 0), Duration::from_secs(30));
        assert!(patience.pause(9, asked, 0) >= Duration::from_secs(30));
        assert_eq!(patience.pause(1, Some(Duration::MAX), 0), GRANTED);
        assert!(patience.pause(usize::MAX, None, 0) <= LONGEST);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let wait = |value: &str| retry_after(value, now);
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:50 GMT"), Some(Duration::from_secs(13)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("soon"), None);
    }
}
