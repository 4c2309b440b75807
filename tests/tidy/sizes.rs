//! Length of functions and files: a ratchet. What is too long stands in `long_functions.toml` with its reason, and may
//! only shrink.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{assert_none, source};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 500;
const LIST: &str = "tests/tidy/long_functions.toml";

/// The exceptions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ratchet {
    #[serde(default)]
    function: Vec<Exception>,
    #[serde(default)]
    file: Vec<Exception>,
}

/// One thing that is longer than it should be, and why.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    file: String,
    #[serde(default)]
    name: String,
    lines: usize,
    reason: String,
}

fn ratchet() -> Ratchet {
    toml::from_str(&source::read(LIST)).unwrap_or_else(|error| panic!("{LIST}: {error}"))
}

/// Compares what was measured with the list: both must tell the same, and the list may not be exceeded.
fn compare(measured: &BTreeMap<(String, String), usize>, listed: &[Exception], limit: usize) -> Vec<String> {
    let mut findings = Vec::new();
    for ((file, name), lines) in measured {
        match listed.iter().find(|entry| entry.file == *file && entry.name == *name) {
            None => findings.push(format!("{file} {name}: {lines} lines, at most {limit}")),
            Some(entry) if *lines > entry.lines => {
                findings.push(format!("{file} {name}: grew from {} to {lines} lines", entry.lines));
            }
            Some(entry) if entry.reason.len() < 10 => findings.push(format!("{file} {name}: listed without a reason")),
            Some(_) => {}
        }
    }
    for entry in listed {
        if !measured.contains_key(&(entry.file.clone(), entry.name.clone())) {
            findings.push(format!("{} {}: short by now; take it off {LIST}", entry.file, entry.name));
        }
    }
    findings
}

#[test]
fn functions_fit_in_the_eye() {
    let mut measured = BTreeMap::new();
    for file in source::files() {
        for function in file.functions() {
            let lines = function.lines.end() - function.lines.start() + 1;
            let is_unit_test = !file.path.starts_with("tests/") && file.is_test_line(*function.lines.start());
            if lines > FUNCTION_LINES_MAX && !is_unit_test {
                measured.insert((file.path.clone(), function.name), lines);
            }
        }
    }
    assert_none("long functions", &compare(&measured, &ratchet().function, FUNCTION_LINES_MAX));
}

#[test]
fn files_fit_in_the_head() {
    let mut measured = BTreeMap::new();
    for file in source::files() {
        let all = file.text.lines().count();
        let lines = if file.path.starts_with("tests/") { all } else { file.production_lines().count() };
        if lines > FILE_LINES_MAX {
            measured.insert((file.path.clone(), String::new()), lines);
        }
    }
    assert_none("long files", &compare(&measured, &ratchet().file, FILE_LINES_MAX));
}
