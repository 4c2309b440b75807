//! Every event of the system, one area a file.

pub mod actor;
pub mod auth;
pub mod backup;
pub mod filter;
pub mod handover;
pub mod mailbox;
pub mod net;
pub mod queue;
pub mod session;
pub mod store;

/// Makes every metric exist, so that a scrape shows zeros before the first event.
pub(crate) fn register() {
    actor::register();
    auth::register();
    backup::register();
    filter::register();
    handover::register();
    mailbox::register();
    net::register();
    queue::register();
    session::register();
    store::register();
}
