//! Documents stay true where a machine can tell: README's commands, links, the numbers of decisions.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{assert_none, source};

/// README's first two shell fences: a contract with everyone who types them.
const FIRST_COMMANDS: [&str; 2] = ["cargo run --release -- demo", "cargo test --workspace"];

#[test]
fn readme_opens_with_the_two_commands() {
    let readme = source::read("README.md");
    let fences: Vec<&str> =
        readme.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).map(str::trim).take(2).collect();
    assert_eq!(fences, FIRST_COMMANDS);
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    let mut documents = Vec::new();
    for folder in ["", "docs", "docs/adr", "deploy"] {
        markdown_in(&source::root().join(folder), &mut documents);
    }
    let mut findings = Vec::new();
    // The table of standards is made from the source, and has its own test.
    documents.retain(|document| !document.ends_with("docs/RFC.md"));
    for document in documents {
        let text = fs::read_to_string(&document).expect("a readable document");
        let folder = document.parent().expect("a document stands in a folder");
        for target in links(&text) {
            if !folder.join(target).exists() {
                findings.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert_none("links to nothing", &findings);
}

/// Decisions made side by side land in any order, so that a number may come later; none is given twice.
#[test]
fn each_decision_has_a_number_of_its_own() {
    let mut numbers = HashSet::new();
    for entry in fs::read_dir(source::root().join("docs/adr")).expect("docs/adr") {
        let name = entry.expect("a readable folder").file_name().to_string_lossy().into_owned();
        let number = name.split_once('-').map(|(number, _)| number.to_owned()).unwrap_or_default();
        let is_number = number.len() == 4 && number.bytes().all(|digit| digit.is_ascii_digit());
        assert!(is_number && name.ends_with(".md"), "{name}: expected nnnn-….md");
        assert!(numbers.insert(number), "{name}: its number is given twice");
    }
}

fn markdown_in(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    found.extend(paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
}

/// Relative link targets, without their anchors.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets
        .map(|target| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains("://"))
}
