//! Events of the area "filter".

pub(crate) fn register() {}
