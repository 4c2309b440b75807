//! The hostile world: faults, workloads, oracles and load against the built program.
fn main() {}
