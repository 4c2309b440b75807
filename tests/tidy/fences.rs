//! Owned rows are written only under a `Fence`: the epoch read inside the transaction is what keeps two owners apart.
//!
//! The rule reads the record modules of `storage`: a public function that changes rows takes a `Fence`, or stands in
//! `WITHOUT_FENCE` with the class of row that lets it.

use super::{assert_none, source};

/// Modules below `src/storage/` that hold the engine, not records: they move bytes whose meaning they do not know.
const ENGINE: [&str; 8] = ["engine", "transaction", "store", "blob", "error", "shard", "keys", "codec"];

/// Calls that change rows.
const WRITES: [&str; 10] = [
    ".transact(",
    ".set(",
    ".clear(",
    ".clear_range(",
    ".atomic(",
    ".atomic_add(",
    ".set_stamped_key(",
    ".set_stamped_value(",
    ".attach(",
    "codec::put(",
];

/// What proves a fence in a signature: itself, or a type that cannot be had without it.
const PROOFS: [&str; 4] = ["Fence", "Fences", "Writer", "AccountState"];

/// Public functions that change rows without a fence, and the class of `keys.rs` that allows it.
const WITHOUT_FENCE: &[(&str, &str, &str)] = &[
    ("writer", "run", "a method of Writer, which holds the fence"),
    ("writer", "save", "a method of AccountState, which was opened under a fence"),
    ("spool", "insert", "inserted by anyone under a unique id"),
    ("spool", "insert_in", "inserted by anyone under a unique id"),
    ("queue", "insert", "inserted by anyone under a unique id"),
    ("queue", "add", "inserted by anyone under a unique id"),
    ("queue", "count_work", "commutative: counters"),
    ("gate", "enter", "inserted by anyone under a unique incarnation; the gate is read in the same transaction"),
    ("gate", "renew", "its own node's row"),
    ("gate", "open", "the gate, which every node row that it reads guards"),
    ("gate", "leave", "its own node's row"),
    ("repair/cluster", "mend", "the fences themselves, which it makes the owner's again"),
    ("owner", "mend", "the fences themselves, beside which nobody else writes"),
    ("repair/pen", "write", "takes the fence of every shard that its edits touch"),
    ("ticket_keys", "current", "replaced as a whole by whoever finds it too old"),
    ("secret", "get_or_create", "written once, by whoever is first"),
];

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
            if !listed && !PROOFS.iter().any(|proof| source::find_word(&function.signature, proof, 0).is_some()) {
                findings.push(format!("{}: {} writes without a Fence", file.path, function.name));
            }
        }
    }
    if used != WITHOUT_FENCE.len() {
        findings.push("WITHOUT_FENCE names a function that is gone or no longer writes".to_owned());
    }
    assert_none("owned writes", &findings);
}

#[test]
fn an_account_is_opened_only_after_its_fence_was_checked() {
    let writer = source::files().into_iter().find(|file| file.path == "src/storage/writer.rs").expect("the writer");
    let open =
        writer.functions().into_iter().find(|function| function.name == "open_any").expect("AccountState::open_any");
    assert!(open.body.contains("check_fence("), "AccountState stands for a fence that nobody checked");
}
