//! Events of the area "mailbox".

pub(crate) fn register() {}
