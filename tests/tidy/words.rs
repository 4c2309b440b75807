//! Words and names that the tree does without: `mod.rs`, catch-all modules, `unwrap`, unnamed todos.

use super::{assert_none, source};

/// File names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 6] = ["mod", "common", "util", "utils", "core", "manager"];

/// Marks of unfinished work in comments; a gap is written `todo RFC 7162 §3.2.5: …` and lands in docs/RFC.md.
const UNFINISHED: [&str; 4] = ["TODO", "FIXME", "XXX", "HACK"];

#[test]
fn no_file_is_a_catch_all() {
    let mut findings = Vec::new();
    for file in source::files() {
        let name = file.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
        if EMPTY_NAMES.contains(&name) {
            findings.push(file.path);
        }
    }
    assert_none("files named after nothing", &findings);
}

#[test]
fn only_tests_unwrap() {
    let mut findings = Vec::new();
    for file in source::files() {
        for (line, text) in file.production_lines() {
            if text.contains(".unwrap()") {
                findings.push(format!("{}:{line}: name the invariant with expect, or return the error", file.path));
            }
        }
    }
    assert_none("unwrap outside tests", &findings);
}

#[test]
fn unfinished_work_names_the_section_it_owes() {
    let mut findings = Vec::new();
    for file in source::files().iter().filter(|file| !file.path.starts_with("tests/tidy")) {
        for (index, comment) in file.comments.lines().enumerate() {
            let unnamed =
                source::find_word(comment, "todo", 0).is_some_and(|at| !comment[at..].starts_with("todo RFC "));
            let marked = UNFINISHED.iter().any(|word| source::find_word(comment, word, 0).is_some());
            if unnamed || marked {
                findings.push(format!("{}:{}: {}", file.path, index + 1, comment.trim()));
            }
        }
    }
    assert_none("unnamed unfinished work", &findings);
}
