//! Who waits for which key to change.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::commit::Request;
use crate::error::Error;

/// Ready after a durable commit that touched the key. Dropping it ends the wait.
pub(super) struct Watch {
    fired: oneshot::Receiver<()>,
    key: Bytes,
    id: u64,
    watches: Arc<Watches>,
}

#[derive(Default)]
pub(super) struct Watches(Mutex<Table>);

#[derive(Default)]
struct Table {
    next_id: u64,
    waiting: BTreeMap<(Bytes, u64), oneshot::Sender<()>>,
}

impl Watches {
    pub(super) fn watch(self: &Arc<Self>, key: Bytes) -> Watch {
        let (sender, fired) = oneshot::channel();
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = table.next_id;
        table.next_id += 1;
        table.waiting.insert((key.clone(), id), sender);
        Watch { fired, key, id, watches: self.clone() }
    }

    /// Fires for everything that a group wrote.
    pub(super) fn fire(&self, group: &[Request]) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.waiting.is_empty() {
            return;
        }
        for request in group {
            for key in request.writes.points.keys() {
                table.fire(key.clone(), |waiting| waiting == key);
            }
            for (begin, end) in request.writes.cleared.iter().chain(&request.write_conflicts) {
                table.fire(begin.clone(), |waiting| waiting < end);
            }
            // Who watches a key with a stamp in it knows it from an earlier commit; such a key is never written twice.
        }
    }

    /// Wakes everybody with an error: no commit will come.
    pub(super) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).waiting.clear();
    }
}

impl Table {
    fn fire(&mut self, from: Bytes, is_touched: impl Fn(&Bytes) -> bool) {
        let touched: Vec<_> = self
            .waiting
            .range((from, 0)..)
            .map(|(entry, _)| entry)
            .take_while(|(key, _)| is_touched(key))
            .cloned()
            .collect();
        for entry in touched {
            if let Some(sender) = self.waiting.remove(&entry) {
                // The watcher may just have gone.
                let _ = sender.send(());
            }
        }
    }
}

impl Future for Watch {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let closed = |_| Error::Unavailable("the store is closed".to_owned());
        Pin::new(&mut self.fired).poll(context).map(|fired| fired.map_err(closed))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut table = self.watches.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = table.waiting.remove(&(self.key.clone(), self.id));
    }
}
