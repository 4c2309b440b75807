//! The state after one commit: the rows of the index, under the layers that it does not hold yet.

use std::sync::Arc;

use bytes::Bytes;

use super::index::IndexRows;
use super::layer::{Layer, Rows};
use super::page::{self, PageBuilder, Stored};
use crate::engine::{Page, RangeRequest};
use crate::error::Error;

pub(super) struct Snapshot {
    pub(super) version: u64,
    /// The newest first; later commits add to it what this version does not see.
    layers: Vec<Arc<Layer>>,
    index: Arc<IndexRows>,
}

impl Snapshot {
    pub(super) fn new(version: u64, layers: Vec<Arc<Layer>>, index: Arc<IndexRows>) -> Self {
        Self { version, layers, index }
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        for layer in &self.layers {
            if let Some(value) = layer.read().get(key, self.version) {
                return Ok(value.clone());
            }
        }
        self.index.get(key)
    }

    /// A page of rows with the changes of a transaction laid over them.
    pub(super) fn range(&self, request: RangeRequest<'_>, changes: &page::Changes<'_>) -> Result<Page, Error> {
        if request.begin >= request.end {
            return Ok(Page::default());
        }
        let guards: Vec<_> = self.layers.iter().map(|layer| layer.read()).collect();
        let layers: Vec<&Rows> = guards.iter().map(|guard| &**guard).collect();
        self.index.with_range(request.begin, request.end, |index| {
            let stored = Stored::new(&layers, index, &request, self.version);
            PageBuilder::new(request).merge(stored, changes)
        })
    }
}
