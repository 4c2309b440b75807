//! `conf/default.toml` shows every key as the types have it: same values, same order, same words.

use posthouse_conf::Settings;

use super::{assert_none, source};

const DEFAULT: &str = "conf/default.toml";

/// A section or a key, with the comment that explains it.
#[derive(Debug, PartialEq)]
struct Entry {
    name: String,
    comment: String,
}

#[test]
fn default_toml_is_the_defaults() {
    let shown = posthouse_conf::parse(&source::read(DEFAULT), DEFAULT).expect("a valid file");
    assert_eq!(shown, Settings::default());
}

#[test]
fn default_toml_shows_every_key_in_order_with_the_words_of_its_type() {
    let shown = entries_of_toml(&source::read(DEFAULT));
    let serialised = toml::to_string(&Settings::default()).expect("settings are a table");
    let mut findings = Vec::new();
    let keys = |entries: &[Entry]| entries.iter().map(|entry| entry.name.clone()).collect::<Vec<_>>();
    let (have, want) = (keys(&shown), keys(&entries_of_toml(&serialised)));
    if have != want {
        let first = have.iter().zip(&want).find(|(a, b)| a != b);
        findings.push(format!("keys differ, first at {first:?}; {} shown, {} in the types", have.len(), want.len()));
    }
    for entry in documented() {
        match shown.iter().find(|other| other.name == entry.name) {
            Some(other) if other.comment != entry.comment => {
                findings.push(format!("{}: `{}` but the type says `{}`", entry.name, other.comment, entry.comment));
            }
            Some(_) => {}
            None => findings.push(format!("{}: not shown", entry.name)),
        }
        if entry.comment.is_empty() {
            findings.push(format!("{}: no doc comment", entry.name));
        }
    }
    assert_none("conf/default.toml", &findings);
}

/// A limit that nothing looks at bounds nothing.
#[test]
fn every_key_is_read_by_the_program() {
    let outside =
        |file: &source::SourceFile| !["conf/", "tests/", "chaos/"].iter().any(|folder| file.path.starts_with(folder));
    let code: Vec<String> = source::files().into_iter().filter(outside).map(|file| file.code).collect();
    let is_read = |key: &str| code.iter().any(|code| source::find_word(code, key, 0).is_some());
    let entries = entries_of_toml(&source::read(DEFAULT));
    let keys = entries.iter().filter_map(|entry| entry.name.rsplit_once('.').filter(|_| !entry.name.starts_with('[')));
    let unread = keys.filter(|(_, key)| !is_read(key)).map(|(section, key)| format!("{section}.{key} is read nowhere"));
    assert_none("conf/default.toml", &unread.collect::<Vec<_>>());
}

/// Sections as `[name]` and keys as `section.key`.
fn entries_of_toml(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut section = String::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in text.lines() {
        if let Some(words) = line.strip_prefix('#') {
            comment.push(words.trim());
        } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
            entries.push(Entry { name: format!("[{name}]"), comment: comment.join(" ") });
            comment.clear();
        } else if let Some((key, _)) = line.split_once(" = ") {
            entries.push(Entry { name: format!("{section}.{key}"), comment: comment.join(" ") });
            comment.clear();
        } else {
            comment.clear();
        }
    }
    entries
}

/// The doc comments of the settings' types: `conf/section/x.rs` holds `[x]`, its first public struct, and
/// `conf/section/x/y.rs` the table `[x.y]`. A field that holds such a table is told of in the table's own file.
fn documented() -> Vec<Entry> {
    let mut entries = Vec::new();
    for file in source::files() {
        let Some(section) = file.path.strip_prefix("conf/section/").and_then(|name| name.strip_suffix(".rs")) else {
            continue;
        };
        let section = section.replace('/', ".");
        let mut comment: Vec<&str> = Vec::new();
        let mut is_inside = false;
        for line in file.text.lines().map(str::trim) {
            if let Some(words) = line.strip_prefix("///") {
                comment.push(words.trim());
            } else if !is_inside && line.starts_with("pub struct ") {
                is_inside = true;
                entries.push(Entry { name: format!("[{section}]"), comment: comment.join(" ") });
                comment.clear();
            } else if is_inside && line == "}" {
                break;
            } else if let Some((key, _)) =
                line.strip_prefix("pub ").and_then(|rest| rest.split_once(": ")).filter(|_| is_inside)
            {
                entries.push(Entry { name: format!("{section}.{key}"), comment: comment.join(" ") });
                comment.clear();
            } else if !line.starts_with("#[") {
                comment.clear();
            }
        }
    }
    let tables: Vec<String> = entries.iter().map(|entry| entry.name.clone()).collect();
    entries.retain(|entry| !tables.contains(&format!("[{}]", entry.name)));
    entries
}
