//! One scenario a file: a workload, the faults that meet it, and what must hold afterwards.

pub mod check_fill;
pub mod check_mutate;
pub mod disk_full;
pub mod fdb_kill;
pub mod power_cut;
pub mod served_kill;
pub mod smtp_kill;
pub mod smtp_load;
pub mod store_kill;
pub mod store_load;
pub mod upgrade;
pub mod upgrade_kill;
