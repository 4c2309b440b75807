//! Messages that killed filter actors, by body, with the stages that they died in.
//!
//! In memory only: after a restart such a message costs two actors again, and no more.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use posthouse_mail::BlobId;

/// The latest of them, up to a bound.
#[derive(Debug)]
pub(super) struct Suspects {
    known: Mutex<Known>,
    max: usize,
}

#[derive(Debug, Default)]
struct Known {
    stages: HashMap<BlobId, Vec<&'static str>>,
    /// Oldest first.
    order: VecDeque<BlobId>,
}

impl Suspects {
    pub fn new(max: usize) -> Self {
        Self { known: Mutex::default(), max: max.max(1) }
    }

    /// The stages to leave out for a body.
    pub fn stages(&self, body: &BlobId) -> Vec<&'static str> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).stages.get(body).cloned().unwrap_or_default()
    }

    /// The body killed in this stage.
    pub fn remember(&self, body: BlobId, stage: &'static str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { stages, order } = &mut *known;
        let of_body = stages.entry(body).or_insert_with(|| {
            order.push_back(body);
            Vec::new()
        });
        if !of_body.contains(&stage) {
            of_body.push(stage);
        }
        if order.len() > self.max
            && let Some(oldest) = order.pop_front()
        {
            stages.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_suspect_is_forgotten_first() {
        let suspects = Suspects::new(2);
        let body = |n| BlobId::new([n; 32]);
        for n in 0..3 {
            suspects.remember(body(n), "dkim");
        }
        suspects.remember(body(2), "spf");
        suspects.remember(body(2), "spf");
        assert!(suspects.stages(&body(0)).is_empty());
        assert_eq!(suspects.stages(&body(1)), ["dkim"]);
        assert_eq!(suspects.stages(&body(2)), ["dkim", "spf"]);
    }
}
