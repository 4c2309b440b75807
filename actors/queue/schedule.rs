//! When a deferred message is tried again, and when it is given up (RFC 5321 §4.5.4.1).
//!
//! Apart and without a clock, so that the rules are data in and data out: settings, attempts, times, one random number.

use std::time::Duration;

use posthouse_conf::Queue;
use posthouse_mail::UnixMillis;

/// The time of the next attempt; `None` when the message has expired. `chance` is from 0 to 1 and spreads the load.
pub fn next_attempt(
    settings: &Queue,
    attempt_count: u32,
    expires_at: UnixMillis,
    now: UnixMillis,
    chance: f64,
) -> Option<UnixMillis> {
    if now >= expires_at {
        return None;
    }
    let at = usize::try_from(attempt_count).unwrap_or(usize::MAX).min(settings.schedule.len().saturating_sub(1));
    let wait = settings.schedule.get(at).map_or(Duration::from_secs(60), |span| span.get());
    // From 1 - share to 1 + share.
    let share = f64::from(settings.jitter_percent) / 100.0;
    let wait = wait.mul_f64((1.0 - share + 2.0 * share * chance.clamp(0.0, 1.0)).max(0.0));
    // One last try at the very end, rather than none after the last wait.
    Some(now.after(wait).min(expires_at))
}

/// Whether the sender is due to hear that the message waits.
pub fn delay_notice_is_due(settings: &Queue, queued_at: UnixMillis, now: UnixMillis, reported: bool) -> bool {
    let after = settings.delay_notice_after.get();
    !reported && !after.is_zero() && now.since(queued_at) >= after
}

#[cfg(test)]
mod tests {
    use posthouse_conf::unit::Span;

    use super::*;

    fn settings() -> Queue {
        Queue { schedule: vec![Span::secs(10), Span::secs(100)], jitter_percent: 20, ..Queue::default() }
    }

    fn check(attempts: u32, now: u64, chance: f64, expect: Option<u64>) {
        let at = next_attempt(&settings(), attempts, UnixMillis(1_000_000), UnixMillis(now), chance);
        assert_eq!(at.map(|at| at.0), expect);
    }

    #[test]
    fn the_last_wait_repeats_until_expiry() {
        check(0, 0, 0.5, Some(10_000));
        check(1, 0, 0.5, Some(100_000));
        check(7, 0, 0.5, Some(100_000));
        check(7, 999_000, 0.5, Some(1_000_000));
        check(7, 1_000_000, 0.5, None);
    }

    #[test]
    fn waits_are_spread_by_the_share() {
        check(0, 0, 0.0, Some(8_000));
        check(0, 0, 1.0, Some(12_000));
    }

    #[test]
    fn the_delay_is_told_once() {
        let settings = Queue { delay_notice_after: Span::secs(5), ..settings() };
        assert!(!delay_notice_is_due(&settings, UnixMillis(0), UnixMillis(4_999), false));
        assert!(delay_notice_is_due(&settings, UnixMillis(0), UnixMillis(5_000), false));
        assert!(!delay_notice_is_due(&settings, UnixMillis(0), UnixMillis(5_000), true));
        let never = Queue { delay_notice_after: Span::ms(0), ..settings };
        assert!(!delay_notice_is_due(&never, UnixMillis(0), UnixMillis(u64::MAX), false));
    }
}
