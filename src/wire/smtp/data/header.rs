//! Counts the header of a message while it passes: octets, fields, Received fields.
//!
//! Apart so that the limits hold before anything parses, whatever the message looks like. It keeps the first octets of a
//! line and three counts.

use super::{DataFault, DataLimits};

/// `received:` is the longest name that we look for.
const PREFIX_MAX: usize = 9;

#[derive(Debug, Clone, Default)]
pub(super) struct HeaderCounter {
    /// The empty line was seen.
    ended: bool,
    octets: usize,
    fields: usize,
    received: usize,
    /// Octets of the current line, capped at its prefix.
    prefix: [u8; PREFIX_MAX],
    prefix_len: usize,
}

impl HeaderCounter {
    /// Whether lines still belong to the header.
    pub(super) fn is_open(&self) -> bool {
        !self.ended
    }

    /// Some octets of a line, without its CRLF.
    pub(super) fn line_part(&mut self, part: &[u8], limits: &DataLimits) -> Result<(), DataFault> {
        if self.ended {
            return Ok(());
        }
        for byte in part.iter().take(PREFIX_MAX - self.prefix_len) {
            self.prefix[self.prefix_len] = *byte;
            self.prefix_len += 1;
        }
        self.add(part.len(), limits)
    }

    /// The CRLF of a line.
    pub(super) fn line_end(&mut self, limits: &DataLimits) -> Result<(), DataFault> {
        if self.ended {
            return Ok(());
        }
        let prefix = &self.prefix[..self.prefix_len];
        self.prefix_len = 0;
        match prefix.first() {
            // RFC 5322 §2.1: the header ends at the empty line.
            None => self.ended = true,
            // RFC 5322 §2.2.3: a folded line goes on with its field.
            Some(b' ' | b'\t') => {}
            Some(_) => {
                self.fields += 1;
                if is_received(prefix) {
                    self.received += 1;
                }
            }
        }
        // RFC 5321 §6.3: a message that passed so many servers goes in a circle.
        if self.received > limits.received_max {
            return Err(DataFault::Loop);
        }
        let counted = self.add(2, limits);
        if self.fields > limits.header_fields_max { Err(DataFault::TooManyFields) } else { counted }
    }

    fn add(&mut self, octets: usize, limits: &DataLimits) -> Result<(), DataFault> {
        self.octets = self.octets.saturating_add(octets);
        if self.octets > limits.header_max { Err(DataFault::HeaderTooLarge) } else { Ok(()) }
    }
}

/// RFC 5322 §4.5: white space may stand before the colon.
fn is_received(prefix: &[u8]) -> bool {
    let Some((name, after)) = prefix.split_at_checked(8) else {
        return false;
    };
    name.eq_ignore_ascii_case(b"received") && matches!(after.first(), Some(b':' | b' ' | b'\t'))
}
