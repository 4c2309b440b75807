//! The command that hands this node to a new program: passes the order on and tells how far it is.

use super::{AdminResult, Progress, view};
use crate::node::{Services, Wish};

pub(super) async fn run(services: &Services, wish: Wish, progress: Progress<'_>) -> AdminResult {
    let mut given = services.orders.upgrade(&services.departure, wish)?;
    let answer = loop {
        tokio::select! {
            Some((done, total, what)) = given.steps.recv() => progress(done, total, &what),
            answer = &mut given.answer => break answer,
        }
    };
    view(&answer.map_err(|_| "the node ended before it answered".to_owned())??)
}
