//! The rules of the tree, as tests: what `docs/ARCHITECTURE.md` and `docs/STYLE.md` promise, this proves.
//!
//! Apart from clippy because these rules are ours: import directions, doors, head comments, ratchets, generated documents.
//! They read source text through `source`, never a compiler, so they run in a second.

mod docs;
mod doors;
mod edges;
mod fences;
mod heads;
mod rfc;
mod settings;
mod sizes;
mod source;
mod words;

/// Fails with every finding on a line of its own, so that one run shows all that is to mend.
fn assert_none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}\n", findings.join("\n  "));
}
