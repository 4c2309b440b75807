//! Owned rows are written only under a `Fence`: the epoch read inside the transaction is what keeps two owners apart.
//!
//! The rule reads the record modules of `storage`: a public function that changes rows takes a `Fence`, or stands in
//! `WITHOUT_FENCE` with the class of row that lets it.

use super::{assert_none, source};

/// Modules below `src/storage/` that hold the engine, not records: they move bytes whose meaning they do not know.
const ENGINE: [&str; 8] = ["engine", "transaction", "store", "blob", "error", "shard", "keys", "codec"];

/// Calls that change rows.
const WRITES: [&str; 8] = [
    ".transact(",
    ".set(",
    ".clear(",
    ".clear_range(",
    ".atomic_add(",
    ".set_stamped_key(",
    ".set_stamped_value(",
    ".attach(",
];

/// Public functions that change rows without a fence, and the class of `keys.rs` that allows it.
const WITHOUT_FENCE: &[(&str, &str, &str)] = &[];

#[test]
fn owned_rows_are_written_under_a_fence() {
    let mut findings = Vec::new();
    let mut used = 0;
    for file in source::files() {
        let Some(module) = file.path.strip_prefix("src/storage/").map(|rest| rest.trim_end_matches(".rs")) else {
            continue;
        };
        if ENGINE.iter().any(|engine| module == *engine || module.starts_with(&format!("{engine}/"))) {
            continue;
        }
        for function in file.functions() {
            let writes = WRITES.iter().any(|call| function.body.contains(call));
            if !writes || !function.is_public || file.is_test_line(*function.lines.start()) {
                continue;
            }
            let listed = WITHOUT_FENCE.iter().any(|(m, name, _)| *m == module && *name == function.name);
            used += usize::from(listed);
            if !listed && source::find_word(&function.signature, "Fence", 0).is_none() {
                findings.push(format!("{}: {} writes without a Fence", file.path, function.name));
            }
        }
    }
    if used != WITHOUT_FENCE.len() {
        findings.push("WITHOUT_FENCE names a function that is gone or no longer writes".to_owned());
    }
    assert_none("owned writes", &findings);
}
