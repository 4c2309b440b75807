//! `[dkim]`: signing of outgoing mail (RFC 6376). Keys are rows of their domain.

use serde::{Deserialize, Serialize};

use super::Complaint;
use crate::unit::Span;

/// Signing of outgoing mail (RFC 6376). Keys are rows of their domain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dkim {
    /// Whether submitted mail is signed with the keys of its header From's domain.
    pub sign: bool,
    /// Size of new RSA keys (RFC 8301 §3.2).
    pub rsa_bits: u16,
    /// How long after its making a further key begins to sign: time to publish its record. A domain's first keys sign at once.
    pub activation_delay: Span,
    /// Domains whose keys stay read in memory.
    pub signers_max: usize,
    /// Fields that are signed; From is signed once more than it stands there, so that none can be added.
    pub headers: Vec<String>,
}

impl Default for Dkim {
    fn default() -> Self {
        Self {
            sign: true,
            rsa_bits: 2048,
            activation_delay: Span::days(2),
            signers_max: 1000,
            headers: [
                "From",
                "To",
                "Cc",
                "Subject",
                "Date",
                "Message-ID",
                "Reply-To",
                "In-Reply-To",
                "References",
                "MIME-Version",
                "Content-Type",
                "Content-Transfer-Encoding",
            ]
            .map(str::to_owned)
            .to_vec(),
        }
    }
}

impl Dkim {
    pub(super) fn complaint(&self) -> Complaint {
        let fits = [2048, 3072, 4096].contains(&self.rsa_bits);
        (!fits).then(|| ("dkim.rsa_bits", "must be 2048, 3072 or 4096".to_owned()))
    }
}
