//! Head comments: every file says what it is and why it exists apart; an actor's file says six things more.

use super::{assert_none, source};

const HEAD_LINES_MAX: usize = 20;

/// What the head of an actor's file tells, in this order.
const ACTOR_LINES: [&str; 6] = ["Owns:", "Receives:", "Sends:", "Bounds:", "On failure:", "Standards:"];

fn head(text: &str) -> Vec<&str> {
    text.lines().take_while(|line| line.starts_with("//!")).collect()
}

#[test]
fn every_file_opens_with_a_head_comment() {
    let mut findings = Vec::new();
    for file in source::files() {
        let head = head(&file.text);
        match head.first().and_then(|line| line.strip_prefix("//! ")) {
            None => findings.push(format!("{}: opens without `//! `", file.path)),
            Some(first) if first.trim().len() < 8 => findings.push(format!("{}: says `{first}`", file.path)),
            Some(_) if head.len() > HEAD_LINES_MAX => {
                findings.push(format!("{}: {} lines of head, at most {HEAD_LINES_MAX}", file.path, head.len()));
            }
            Some(_) => {}
        }
    }
    assert_none("head comments", &findings);
}

#[test]
fn an_actor_file_tells_what_it_owns_receives_sends_bounds_and_fails_by() {
    let mut findings = Vec::new();
    for file in source::files() {
        let is_actor = file.path.starts_with("actors/")
            && file.production_lines().any(|(_, line)| {
                source::find_word(line, "Actor", 0)
                    .is_some_and(|at| line.trim_start().starts_with("impl") && line[at..].starts_with("Actor for "))
            });
        if !is_actor {
            continue;
        }
        let head = head(&file.text).join(" ");
        let missing: Vec<&str> = ACTOR_LINES.into_iter().filter(|label| !head.contains(label)).collect();
        if !missing.is_empty() {
            findings.push(format!("{}: no {}", file.path, missing.join(" ")));
        }
    }
    assert_none("heads of actors", &findings);
}
