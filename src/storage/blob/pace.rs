//! Holds work in the background to so many octets a second, so that it never takes the disk from the mail.

use std::time::Duration;

use tokio::time::Instant;

/// Work that was slower than its rate may catch up by this much.
const CREDIT: Duration = Duration::from_secs(1);
/// A lower rate would never come to an end.
const LEAST: u64 = 64 << 10;

/// A rate and what was done under it.
pub(crate) struct Pace {
    octets_per_second: u64,
    /// When everything done so far is paid for.
    paid_at: Instant,
}

impl Pace {
    pub(crate) fn new(octets_per_second: u64) -> Self {
        Self { octets_per_second: octets_per_second.max(LEAST), paid_at: Instant::now() }
    }

    /// Waits until so many octets more are within the rate.
    pub(crate) async fn spend(&mut self, octets: u64) {
        let now = Instant::now();
        let from = self.paid_at.max(now.checked_sub(CREDIT).unwrap_or(now));
        let micros = octets.saturating_mul(1_000_000) / self.octets_per_second;
        self.paid_at = from + Duration::from_micros(micros);
        tokio::time::sleep_until(self.paid_at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept() {
        let start = Instant::now();
        let mut pace = Pace::new(1 << 20);
        for _ in 0..50 {
            pace.spend(1 << 20).await;
        }
        let taken = start.elapsed();
        assert!(taken >= Duration::from_secs(49) && taken <= Duration::from_secs(51), "{taken:?}");
    }
}
