//! A page of a scan: the rows of the index and of the layers above it, merged with the own changes of the transaction that
//! scans.

use std::cmp::Ordering;

use bytes::{Bytes, BytesMut};

use super::index::{self, IndexRange, IndexRow};
use super::layer::{Rows, Value};
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

/// The rows of a snapshot in the order asked for: of several with one key, that of the newest layer.
pub(super) struct Stored<'a> {
    /// The newest first.
    layers: Vec<LayerRows<'a>>,
    index: IndexRange,
    next_in_index: Option<IndexRow>,
    reverse: bool,
    is_started: bool,
}

type LayerRows<'a> = std::iter::Peekable<Box<dyn Iterator<Item = (&'a Bytes, &'a Value)> + 'a>>;

/// One row of a snapshot.
enum StoredRow<'a> {
    Recent(&'a Bytes, &'a Bytes),
    Indexed(IndexRow),
}

impl StoredRow<'_> {
    fn key(&self) -> &[u8] {
        match self {
            Self::Recent(key, _) => key,
            Self::Indexed((key, _)) => key.value(),
        }
    }

    fn value(&self) -> &[u8] {
        match self {
            Self::Recent(_, value) => value,
            Self::Indexed((_, value)) => value.value(),
        }
    }
}

impl<'a> Stored<'a> {
    pub(super) fn new(layers: &[&'a Rows], index: IndexRange, request: &RangeRequest<'_>, version: u64) -> Self {
        let reverse = request.reverse;
        let rows = |layer: &&'a Rows| {
            let rows = layer.range(request.begin, request.end, version);
            let rows: Box<dyn Iterator<Item = _>> = if reverse { Box::new(rows.rev()) } else { Box::new(rows) };
            rows.peekable()
        };
        let layers = layers.iter().filter(|layer| !layer.is_empty()).map(rows).collect();
        Self { layers, index, next_in_index: None, reverse, is_started: false }
    }

    fn order(&self, a: &[u8], b: &[u8]) -> Ordering {
        if self.reverse { b.cmp(a) } else { a.cmp(b) }
    }

    fn advance_index(&mut self) -> Result<(), Error> {
        let row = if self.reverse { self.index.next_back() } else { self.index.next() };
        self.next_in_index = row.transpose().map_err(index::storage)?;
        Ok(())
    }

    fn next(&mut self) -> Result<Option<StoredRow<'a>>, Error> {
        if !self.is_started {
            self.is_started = true;
            self.advance_index()?;
        }
        loop {
            let Some(recent) = self.nearest_recent() else {
                return self.take_indexed();
            };
            let order = match &self.next_in_index {
                Some((key, _)) => self.order(recent, key.value()),
                None => Ordering::Less,
            };
            if order.is_gt() {
                return self.take_indexed();
            }
            if order.is_eq() {
                self.advance_index()?;
            }
            // A cleared row hides the one below it.
            if let Some((key, Some(value))) = self.take_recent(recent) {
                return Ok(Some(StoredRow::Recent(key, value)));
            }
        }
    }

    fn take_indexed(&mut self) -> Result<Option<StoredRow<'a>>, Error> {
        let row = self.next_in_index.take();
        if row.is_some() {
            self.advance_index()?;
        }
        Ok(row.map(StoredRow::Indexed))
    }

    fn nearest_recent(&mut self) -> Option<&'a Bytes> {
        let reverse = self.reverse;
        let heads = self.layers.iter_mut().filter_map(|rows| rows.peek().map(|(key, _)| *key));
        if reverse { heads.max() } else { heads.min() }
    }

    /// Takes a key out of every layer; the newest says what it is.
    fn take_recent(&mut self, key: &Bytes) -> Option<(&'a Bytes, &'a Value)> {
        let rows = self.layers.iter_mut().filter_map(|rows| rows.next_if(|(head, _)| *head == key));
        // All must be taken, so that no older one comes up again.
        rows.fold(None, |newest, row| newest.or(Some(row)))
    }
}

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
    pub(super) fn merge(mut self, mut rows: Stored<'_>, changes: &Changes<'_>) -> Result<Page, Error> {
        let reverse = self.request.reverse;
        let mut own: Vec<_> = changes.points.clone();
        // The next one is taken from the end.
        if !reverse {
            own.reverse();
        }
        let mut stored = rows.next()?;
        while !self.is_full() {
            let order = match (&stored, own.last()) {
                (None, None) => return Ok(self.finish(false)),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(row), Some((own, _))) if reverse => (***own).cmp(row.key()),
                (Some(row), Some((own, _))) => row.key().cmp(own),
            };
            let own_change = if order.is_lt() { None } else { own.pop() };
            let stored_row = if order.is_gt() { None } else { std::mem::replace(&mut stored, rows.next()?) };
            self.push_row(stored_row, own_change, changes);
        }
        Ok(self.finish(true))
    }

    /// One key: the stored row, the own change, or both.
    fn push_row(&mut self, stored: Option<StoredRow<'_>>, own: Option<(&Bytes, &Pending)>, changes: &Changes<'_>) {
        let stored = stored.filter(|row| !changes.hides(row.key()));
        match (own, stored) {
            (None, None) | (Some((_, Pending::Clear | Pending::StampedValue { .. })), _) => {}
            (None, Some(row)) => self.push(row.key(), row.value()),
            (Some((key, Pending::Set(value))), _) => self.push(key, value),
            (Some((key, Pending::Atomic(changes))), stored) => {
                let current = stored.map(|row| Bytes::copy_from_slice(row.value()));
                if let Some(value) = apply_all(current, changes) {
                    self.push(key, &value);
                }
            }
        }
    }
}
