//! A wait for a key to change, whichever engine it runs on.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::error::Error;

/// Ready after a durable commit that changed the row; may be spurious. Dropping it ends the wait.
pub struct Watch(BoxFuture<'static, Result<(), Error>>);

impl Watch {
    pub(crate) fn new(fired: impl Future<Output = Result<(), Error>> + Send + 'static) -> Self {
        Self(fired.boxed())
    }
}

impl Future for Watch {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_unpin(context)
    }
}
