//! Events of the area "auth".

pub(crate) fn register() {}
