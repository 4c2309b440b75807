//! Message content in memory, counted in octets against one budget (`filter.memory_max`).
//!
//! A permit lives as long as the content it stands for; a message that finds the budget spent waits, and its own deadline
//! ends that wait.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Octets that one unit of the semaphore stands for; a semaphore counts in 32 bits.
const UNIT: u64 = 1024;

/// The budget of all filter actors together.
#[derive(Debug, Clone)]
pub struct ContentBudget {
    units: Arc<Semaphore>,
    units_max: u32,
}

/// Leave to hold so much content; given back when dropped.
#[derive(Debug)]
pub struct ContentPermit {
    _units: OwnedSemaphorePermit,
}

impl ContentBudget {
    /// A budget of so many octets, at least one unit.
    pub fn new(octets: u64) -> Self {
        let units_max = u32::try_from(octets / UNIT).unwrap_or(u32::MAX >> 4).clamp(1, u32::MAX >> 4);
        let units = Arc::new(Semaphore::new(usize::try_from(units_max).unwrap_or(usize::MAX >> 4)));
        Self { units, units_max }
    }

    /// Waits until so many octets are free. A request over the whole budget waits for all of it, so it is served alone.
    pub async fn acquire(&self, octets: u64) -> ContentPermit {
        let units = u32::try_from(octets.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.units_max);
        let permit = Arc::clone(&self.units).acquire_many_owned(units).await;
        ContentPermit { _units: permit.expect("the budget's semaphore is never closed") }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn content_over_the_budget_waits_until_other_content_is_gone() {
        let budget = ContentBudget::new(8 * UNIT);
        let first = budget.acquire(6 * UNIT).await;
        assert!(budget.acquire(3 * UNIT).now_or_never().is_none());
        drop(first);
        assert!(budget.acquire(3 * UNIT).now_or_never().is_some());
        assert!(budget.acquire(1 << 40).now_or_never().is_some(), "a giant takes the whole budget, not more");
    }
}
