//! The spooled messages that wait for a distributor: each known once, no more in memory than the bound.
//!
//! Apart so that the rules on double and lost hints are tried without actors.

use std::collections::{HashSet, VecDeque};

use posthouse_mail::IngestId;

/// A queue of ids. An id is known from its first mention until it is forgotten: waiting, in work, or put off.
#[derive(Debug)]
pub(super) struct Waiting {
    queue: VecDeque<IngestId>,
    known: HashSet<IngestId>,
    max: usize,
    /// Some id did not fit: the store has more than is known here.
    missed: bool,
}

impl Waiting {
    pub(super) fn new(max: usize) -> Self {
        Self { queue: VecDeque::new(), known: HashSet::new(), max: max.max(1), missed: false }
    }

    /// A message that may be new.
    pub(super) fn add(&mut self, id: IngestId) {
        if self.known.contains(&id) {
            return;
        }
        if self.known.len() >= self.max {
            self.missed = true;
            return;
        }
        self.known.insert(id);
        self.queue.push_back(id);
    }

    /// A known message that was put off waits again.
    pub(super) fn resume(&mut self, id: IngestId) {
        if self.known.contains(&id) {
            self.queue.push_back(id);
        }
    }

    pub(super) fn next(&mut self) -> Option<IngestId> {
        self.queue.pop_front()
    }

    /// The message is finished.
    pub(super) fn forget(&mut self, id: IngestId) {
        self.known.remove(&id);
    }

    pub(super) fn has_room(&self) -> bool {
        self.known.len() < self.max
    }

    /// Whether the store has to be searched, and half of the room is free for what is found.
    pub(super) fn wants_scan(&self) -> bool {
        self.missed && self.known.len() <= self.max / 2
    }

    /// A scan came to the end of the rows: every one is known.
    pub(super) fn all_seen(&mut self) {
        self.missed = false;
    }

    /// A scan stopped for lack of room.
    pub(super) fn not_all_seen(&mut self) {
        self.missed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_known_once() {
        let [a, b] = [1, 2].map(IngestId::new);
        let mut waiting = Waiting::new(10);
        [a, a, b].into_iter().for_each(|id| waiting.add(id));
        assert_eq!(waiting.next(), Some(a));
        waiting.add(a);
        assert_eq!(waiting.next(), Some(b));
        assert_eq!(waiting.next(), None, "one in work is not given out twice");
        waiting.resume(a);
        assert_eq!(waiting.next(), Some(a));
        waiting.forget(a);
        waiting.resume(a);
        assert_eq!(waiting.next(), None);
    }

    #[test]
    fn what_does_not_fit_is_searched_for_later() {
        let mut waiting = Waiting::new(2);
        (1..=3).map(IngestId::new).for_each(|id| waiting.add(id));
        assert!(!waiting.wants_scan(), "there is no room yet");
        let first = waiting.next().expect("an id");
        waiting.forget(first);
        assert!(waiting.wants_scan());
    }
}
