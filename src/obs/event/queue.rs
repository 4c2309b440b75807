//! Events of the area "queue".

pub(crate) fn register() {}
