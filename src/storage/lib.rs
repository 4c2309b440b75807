//! The store: the only door to the embedded engine.
