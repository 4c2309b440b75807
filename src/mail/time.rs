//! Points in time as rows and messages carry them.

use std::time::Duration;

/// Milliseconds since 1970-01-01 UTC. The clock is read at the edges; everything else takes this as an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// Later by a duration, saturating.
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Time since an earlier point; zero if that point lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}
