//! Who does the work: one file per actor.
