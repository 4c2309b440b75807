//! The maildrop as one session sees it: numbered at login, with marks that take effect at QUIT (RFC 1939 §5, §6).

use posthouse_mail::{Uid, UidValidity};

use super::command::Number;

/// One message of the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub uid: Uid,
    /// Octets as RETR sends them, before byte-stuffing (RFC 1939 §11).
    pub size: u64,
}

/// Part of the session's value: what a new process needs to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maildrop {
    uid_validity: UidValidity,
    entries: Vec<Entry>,
    /// As long as `entries`.
    marked: Vec<bool>,
}

impl Maildrop {
    /// Numbers the messages in the order given.
    pub fn new(uid_validity: UidValidity, entries: Vec<Entry>) -> Self {
        let marked = vec![false; entries.len()];
        Self { uid_validity, entries, marked }
    }

    /// A maildrop as another process knew it, with the numbers of its marks; `None` where no session could have made it.
    pub fn restore(uid_validity: UidValidity, entries: Vec<Entry>, marks: &[Number]) -> Option<Self> {
        let ascending = entries.iter().zip(entries.iter().skip(1)).all(|(one, next)| one.uid < next.uid);
        let mut maildrop = Self::new(uid_validity, entries);
        (ascending && marks.iter().all(|number| maildrop.mark(*number))).then_some(maildrop)
    }

    /// All messages, marked or not.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The numbers of the marked messages, ascending.
    pub fn marks(&self) -> impl Iterator<Item = Number> {
        self.marked.iter().enumerate().filter(|(_, marked)| **marked).map(|(index, _)| index + 1)
    }

    /// The message of a number, unless it is marked as deleted.
    pub fn get(&self, number: Number) -> Option<Entry> {
        let index = number.checked_sub(1)?;
        let entry = self.entries.get(index)?;
        (!self.marked.get(index)?).then_some(*entry)
    }

    /// Count and octets of what is not marked (RFC 1939 §5 STAT).
    pub fn stat(&self) -> (usize, u64) {
        let sizes = self.present().map(|(_, entry)| entry.size);
        sizes.fold((0, 0), |(count, octets), size| (count + 1, octets.saturating_add(size)))
    }

    /// Marks a message; false if there is none of that number.
    pub fn mark(&mut self, number: Number) -> bool {
        let present = self.get(number).is_some();
        if present && let Some(marked) = number.checked_sub(1).and_then(|index| self.marked.get_mut(index)) {
            *marked = true;
        }
        present
    }

    /// Takes all marks back (RFC 1939 §5 RSET).
    pub fn unmark_all(&mut self) {
        self.marked.fill(false);
    }

    /// What QUIT removes.
    pub fn marked(&self) -> Vec<Uid> {
        self.entries.iter().zip(&self.marked).filter(|(_, marked)| **marked).map(|(entry, _)| entry.uid).collect()
    }

    pub fn uid_validity(&self) -> UidValidity {
        self.uid_validity
    }

    /// RFC 1939 §7: stable across sessions, unique within the maildrop, 1 to 70 printable characters.
    pub fn unique_id(&self, entry: &Entry) -> String {
        format!("{}.{}", self.uid_validity, entry.uid)
    }

    /// Numbers and messages from `first` on, without the marked ones.
    pub fn present_from(&self, first: Number) -> impl Iterator<Item = (Number, &Entry)> {
        let skipped = first.saturating_sub(1);
        let all = self.entries.iter().zip(&self.marked).enumerate().skip(skipped);
        all.filter(|(_, (_, marked))| !**marked).map(|(index, (entry, _))| (index + 1, entry))
    }

    fn present(&self) -> impl Iterator<Item = (Number, &Entry)> {
        self.present_from(1)
    }
}
