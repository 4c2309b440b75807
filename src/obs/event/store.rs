//! Events of the area "store".

pub(crate) fn register() {}
