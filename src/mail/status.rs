//! Enhanced mail system status codes (RFC 3463), such as 5.7.1.

use std::fmt;

/// Class, subject and detail.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EnhancedStatus {
    pub class: u8,
    pub subject: u16,
    pub detail: u16,
}

impl EnhancedStatus {
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        Self { class, subject, detail }
    }

    /// Reads `5.7.1`; RFC 3463 §2 allows the classes 2, 4 and 5.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let class = parts.next()?.parse().ok().filter(|c| [2, 4, 5].contains(c))?;
        let subject = parts.next()?.parse().ok().filter(|n| *n <= 999)?;
        let detail = parts.next()?.parse().ok().filter(|n| *n <= 999)?;
        parts.next().is_none().then_some(Self { class, subject, detail })
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl fmt::Debug for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3463_2_status_is_class_subject_detail() {
        assert_eq!(EnhancedStatus::parse("5.7.1"), Some(EnhancedStatus::new(5, 7, 1)));
        assert_eq!(EnhancedStatus::parse("3.7.1"), None);
        assert_eq!(EnhancedStatus::parse("5.7"), None);
        assert_eq!(EnhancedStatus::parse("5.7.1.1"), None);
    }
}
