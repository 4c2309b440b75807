//! A page of a scan: rows of a snapshot merged with the own changes of the transaction that scans.

use bytes::{Bytes, BytesMut};

use super::index::storage;
use super::overlay::{Overlay, Pending, apply_all};
use crate::engine::{Page, RangeRequest};
use crate::error::Error;

/// The own changes that concern a scan.
pub(super) struct Changes<'a> {
    /// In ascending order of keys.
    points: Vec<(&'a Bytes, &'a Pending)>,
    overlay: Option<&'a Overlay>,
}

impl<'a> Changes<'a> {
    pub(super) fn none() -> Self {
        Self { points: Vec::new(), overlay: None }
    }

    pub(super) fn of(overlay: &'a Overlay, request: &RangeRequest<'_>) -> Result<Self, Error> {
        let points = overlay.in_range(request.begin, request.end)?;
        Ok(Self { points, overlay: (!overlay.cleared.is_empty()).then_some(overlay) })
    }

    pub(super) fn is_none(&self) -> bool {
        self.points.is_empty() && self.overlay.is_none()
    }

    fn hides(&self, key: &[u8]) -> bool {
        self.overlay.is_some_and(|overlay| overlay.is_cleared(key))
    }
}

/// Collects rows in one allocation until a limit is reached.
pub(super) struct PageBuilder<'a> {
    request: RangeRequest<'a>,
    octets: BytesMut,
    /// Lengths of key and value.
    lengths: Vec<(usize, usize)>,
}

type StoredRow = (redb::AccessGuard<'static, &'static [u8]>, redb::AccessGuard<'static, &'static [u8]>);

impl<'a> PageBuilder<'a> {
    pub(super) fn new(request: RangeRequest<'a>) -> Self {
        Self { request, octets: BytesMut::new(), lengths: Vec::new() }
    }

    fn push(&mut self, key: &[u8], value: &[u8]) {
        self.octets.extend_from_slice(key);
        self.octets.extend_from_slice(value);
        self.lengths.push((key.len(), value.len()));
    }

    fn is_full(&self) -> bool {
        self.lengths.len() >= self.request.limit
            || (!self.lengths.is_empty() && self.octets.len() >= self.request.bytes)
    }

    fn finish(self, more: bool) -> Page {
        let mut octets = self.octets.freeze();
        let rows = self.lengths.iter().map(|(key, value)| (octets.split_to(*key), octets.split_to(*value))).collect();
        Page { rows, more }
    }

    /// Walks both sides in the order asked for.
    pub(super) fn merge(
        mut self,
        mut rows: redb::Range<'static, &'static [u8], &'static [u8]>,
        changes: &Changes<'_>,
    ) -> Result<Page, Error> {
        let reverse = self.request.reverse;
        let mut next_stored = || -> Result<Option<StoredRow>, Error> {
            let row = if reverse { rows.next_back() } else { rows.next() };
            row.transpose().map_err(storage)
        };
        let mut own: Vec<_> = changes.points.clone();
        // The next one is taken from the end.
        if !reverse {
            own.reverse();
        }
        let mut stored = next_stored()?;
        while !self.is_full() {
            let order = match (&stored, own.last()) {
                (None, None) => return Ok(self.finish(false)),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((key, _)), Some((own, _))) if reverse => (***own).cmp(key.value()),
                (Some((key, _)), Some((own, _))) => key.value().cmp(own),
            };
            let own_change = if order.is_lt() { None } else { own.pop() };
            let stored_row = if order.is_gt() { None } else { std::mem::replace(&mut stored, next_stored()?) };
            self.push_row(stored_row, own_change, changes);
        }
        Ok(self.finish(true))
    }

    /// One key: the stored row, the own change, or both.
    fn push_row(&mut self, stored: Option<StoredRow>, own: Option<(&Bytes, &Pending)>, changes: &Changes<'_>) {
        let stored = stored.filter(|(key, _)| !changes.hides(key.value()));
        match (own, stored) {
            (None, None) | (Some((_, Pending::Clear | Pending::StampedValue { .. })), _) => {}
            (None, Some((key, value))) => self.push(key.value(), value.value()),
            (Some((key, Pending::Set(value))), _) => self.push(key, value),
            (Some((key, Pending::Atomic(changes))), stored) => {
                let current = stored.map(|(_, value)| Bytes::copy_from_slice(value.value()));
                if let Some(value) = apply_all(current, changes) {
                    self.push(key, &value);
                }
            }
        }
    }
}
