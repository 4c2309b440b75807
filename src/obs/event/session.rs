//! Events of the area "session".

pub(crate) fn register() {}
