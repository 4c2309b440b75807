//! Dialogues as files: `transcripts/<protocol>/<rule>.txt` is spoken word for word with a demo.
//!
//! The format is told in `transcripts/README.md`. Files with the same `@conf` lines share one demo; none depends on
//! another. Apart from the end-to-end tests, which watch what happens behind the dialogue.

mod pattern;
mod script;
mod speak;

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::harness::program::Demo;
use script::Script;

/// Speaks every file of a folder; reports all that fail.
fn speak_folder(protocol: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts").join(protocol);
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no transcript in {}", folder.display());

    let mut groups: BTreeMap<Vec<(String, String)>, Vec<Script>> = BTreeMap::new();
    for path in paths {
        let script = Script::load(&path).unwrap_or_else(|error| panic!("{error}"));
        groups.entry(script.settings.clone()).or_default().push(script);
    }
    let mut failures = Vec::new();
    let mut count = 0;
    for (settings, scripts) in groups {
        // A refused login waits; a dialogue need not.
        let mut environment = vec![("POSTHOUSE_AUTH__FAILURE_DELAY", "10ms")];
        environment.extend(settings.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        let demo = Demo::with(&environment);
        for script in scripts {
            count += 1;
            let spoken = catch_unwind(AssertUnwindSafe(|| speak::speak(&demo, &script)));
            match spoken {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => failures.push(failure),
                Err(panic) => failures.push(format!("{}: {}", script.name, panic_text(&*panic))),
            }
        }
    }
    assert!(failures.is_empty(), "{} of {count} transcripts failed:\n\n{}\n", failures.len(), failures.join("\n\n"));
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?")
}

#[test]
fn smtp_transcripts() {
    speak_folder("smtp");
}

#[test]
fn submission_transcripts() {
    speak_folder("submission");
}

#[test]
fn imap_transcripts() {
    speak_folder("imap");
}

#[test]
fn pop3_transcripts() {
    speak_folder("pop3");
}
