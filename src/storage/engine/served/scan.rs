//! A page of a scan: stored rows as the server sends them, merged with the own changes of the transaction that scans.

use std::cmp::Ordering;
use std::collections::VecDeque;

use bytes::Bytes;

use crate::engine::embedded::overlay::{Pending, apply_all};
use crate::engine::{Page, RangeRequest};

type Row = (Bytes, Bytes);

/// What the merge needs next.
pub(super) enum Stored {
    Enough(Page),
    /// Stored rows of this part of the range.
    Wanted {
        begin: Vec<u8>,
        end: Vec<u8>,
    },
}

/// Collects rows until a limit is reached.
pub(super) struct Merge<'a> {
    request: RangeRequest<'a>,
    /// In the order of the scan.
    own: VecDeque<(Bytes, Pending)>,
    cleared: Vec<(Bytes, Bytes)>,
    stored: VecDeque<Row>,
    /// The part that was not read yet.
    rest: Option<(Vec<u8>, Vec<u8>)>,
    page: Page,
    octets: usize,
}

impl<'a> Merge<'a> {
    pub(super) fn new(request: RangeRequest<'a>, own: Vec<(&Bytes, &Pending)>, cleared: &[(Bytes, Bytes)]) -> Self {
        let own = own.into_iter().map(|(key, pending)| (key.clone(), pending.clone()));
        let own = if request.reverse { own.rev().collect() } else { own.collect() };
        let rest = Some((request.begin.to_vec(), request.end.to_vec()));
        let (stored, page) = (VecDeque::new(), Page::default());
        Self { request, own, cleared: cleared.to_vec(), stored, rest, page, octets: 0 }
    }

    /// Goes on until a limit is reached or stored rows are missing.
    pub(super) fn step(&mut self) -> Stored {
        while !self.is_full() {
            if self.stored.is_empty()
                && let Some((begin, end)) = &self.rest
            {
                return Stored::Wanted { begin: begin.clone(), end: end.clone() };
            }
            if self.stored.is_empty() && self.own.is_empty() {
                return Stored::Enough(std::mem::take(&mut self.page));
            }
            self.take_one();
        }
        let page = std::mem::take(&mut self.page);
        Stored::Enough(Page { more: true, ..page })
    }

    /// Rows that `step` wanted.
    pub(super) fn supply(&mut self, page: Page) {
        let last = page.rows.last().map(|(key, _)| key.clone());
        self.rest = match (self.rest.take(), last) {
            (Some((begin, _)), Some(last)) if page.more && self.request.reverse => Some((begin, last.to_vec())),
            (Some((_, end)), Some(last)) if page.more => Some(([&last[..], &[0]].concat(), end)),
            _ => None,
        };
        self.rest = self.rest.take().filter(|(begin, end)| begin < end);
        self.stored = page.rows.into();
    }

    fn is_full(&self) -> bool {
        self.page.rows.len() >= self.request.limit || (!self.page.rows.is_empty() && self.octets >= self.request.bytes)
    }

    /// One key: the stored row, the own change, or both.
    fn take_one(&mut self) {
        let order = match (self.stored.front(), self.own.front()) {
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
            (Some((stored, _)), Some((own, _))) if self.request.reverse => own.cmp(stored),
            (Some((stored, _)), Some((own, _))) => stored.cmp(own),
        };
        let stored = if order.is_gt() { None } else { self.stored.pop_front() };
        let own = if order.is_lt() { None } else { self.own.pop_front() };
        let stored = stored.filter(|(key, _)| !self.is_cleared(key));
        match (own, stored) {
            (None, Some((key, value))) | (Some((key, Pending::Set(value))), _) => self.push(key, value),
            (Some((key, Pending::Atomic(changes))), stored) => {
                if let Some(value) = apply_all(stored.map(|(_, value)| value), &changes) {
                    self.push(key, value);
                }
            }
            (None, None) | (Some((_, Pending::Clear | Pending::StampedValue { .. })), _) => {}
        }
    }

    fn is_cleared(&self, key: &Bytes) -> bool {
        self.cleared.iter().any(|(begin, end)| begin <= key && key < end)
    }

    fn push(&mut self, key: Bytes, value: Bytes) {
        self.octets += key.len() + value.len();
        self.page.rows.push((key, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::embedded::overlay::Overlay;

    /// Serves pages of two rows out of a list.
    fn run(request: RangeRequest<'_>, stored: &[&'static str], writes: &Overlay) -> (String, bool) {
        let own = writes.in_range(request.begin, request.end).expect("readable");
        let mut merge = Merge::new(request, own, &writes.cleared);
        loop {
            match merge.step() {
                Stored::Enough(page) => {
                    let keys: Vec<_> = page.rows.iter().map(|(key, _)| String::from_utf8_lossy(key)).collect();
                    return (keys.join(" "), page.more);
                }
                Stored::Wanted { begin, end } => {
                    let within = |key: &&&str| begin.as_slice() <= key.as_bytes() && key.as_bytes() < end.as_slice();
                    let mut rows: Vec<Row> =
                        stored.iter().filter(within).map(|key| (Bytes::from(*key), Bytes::from("v"))).collect();
                    if request.reverse {
                        rows.reverse();
                    }
                    let more = rows.len() > 2;
                    rows.truncate(2);
                    merge.supply(Page { rows, more });
                }
            }
        }
    }

    #[test]
    fn own_changes_lie_over_pages_in_both_directions() {
        let mut writes = Overlay::default();
        writes.clear_range(Bytes::from("c"), Bytes::from("e"));
        writes.set(Bytes::from("bb"), Bytes::from("new"));
        writes.clear(Bytes::from("f"));
        let stored = ["a", "b", "c", "d", "e", "f", "g"];
        let all = RangeRequest::new(b"a", b"z");
        assert_eq!(run(all, &stored, &writes), ("a b bb e g".to_owned(), false));
        assert_eq!(run(all.reverse(), &stored, &writes), ("g e bb b a".to_owned(), false));
        assert_eq!(run(all.limit(3), &stored, &writes), ("a b bb".to_owned(), true));
        assert_eq!(run(all.limit(2).reverse(), &stored, &writes), ("g e".to_owned(), true));
        assert_eq!(run(all.bytes(4), &stored, &Overlay::default()), ("a b".to_owned(), true));
        assert_eq!(run(RangeRequest::new(b"h", b"z"), &stored, &writes), (String::new(), false));
    }
}
