//! How much room an account has: the question at RCPT.
//!
//! The sum itself is moved by every delivery and expunge (`writer::AccountState`). The answer here is a snapshot: one
//! message more than fits is tolerated later, never bounced.

use posthouse_mail::AccountId;

use crate::account;
use crate::error::Error;
use crate::store::Store;

/// Room of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub used: u64,
    /// `None` is no limit.
    pub max: Option<u64>,
    pub email_count: u64,
}

impl Usage {
    /// Whether so much more fits.
    pub fn has_room(&self, octets: u64) -> bool {
        self.max.is_none_or(|max| self.used.saturating_add(octets) <= max)
    }
}

/// What an account uses and may use.
pub async fn usage(store: &Store, account: AccountId) -> Result<Usage, Error> {
    let account = account::by_id(store, account).await?.ok_or(Error::NotFound)?;
    Ok(Usage { used: account.quota_used, max: account.quota_max, email_count: account.email_count })
}

#[cfg(test)]
mod tests {
    use super::Usage;

    #[test]
    fn the_last_octet_still_fits() {
        let usage = Usage { used: 6, max: Some(10), email_count: 1 };
        assert!(usage.has_room(4) && !usage.has_room(5) && !usage.has_room(u64::MAX));
        assert!(Usage { max: None, ..usage }.has_room(u64::MAX));
    }
}
