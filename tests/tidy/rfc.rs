//! `docs/RFC.md`: which standards the tree keeps, section by section, made from the source itself.
//!
//! `docs/rfc.toml` says what we claim; the references (`RFC 5321 §4.5.3.1.8`) and the gaps (`todo RFC 7162 §3.2.5: …`) in
//! comments say what is there. `POSTHOUSE_BLESS=1 cargo test --test main rfc` writes the table anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Deserialize;

use super::{assert_none, source};

const CLAIMS: &str = "docs/rfc.toml";
const TABLE: &str = "docs/RFC.md";

/// Where references count: the product, not its tests.
const FOLDERS: [&str; 4] = ["src/", "actors/", "cluster/", "conf/"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    rfc: Vec<Claim>,
}

/// What we say about one RFC.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    number: u32,
    title: String,
    status: Status,
    /// What is left out, or why the RFC stands here without being ours to implement.
    #[serde(default)]
    note: String,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Debug)]
#[serde(rename_all = "lowercase")]
enum Status {
    Yes,
    Partial,
    Planned,
    No,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Partial => "partial",
            Self::Planned => "planned",
            Self::No => "no",
        }
    }
}

/// What the source says about one RFC.
#[derive(Default)]
struct Evidence {
    /// Section (empty: the RFC as a whole) -> files.
    sections: BTreeMap<Section, BTreeSet<String>>,
    /// Gap -> file.
    gaps: BTreeSet<(String, String)>,
}

/// A section number that sorts as people count: §4.5.3 before §4.10.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone)]
struct Section(Vec<(u32, String)>);

impl Section {
    fn of(text: &str) -> Self {
        let part = |part: &str| (part.parse().unwrap_or(u32::MAX), part.to_owned());
        Self(text.split('.').filter(|text| !text.is_empty()).map(part).collect())
    }

    fn show(&self) -> String {
        let parts: Vec<&str> = self.0.iter().map(|(_, text)| text.as_str()).collect();
        if parts.is_empty() { "as a whole".to_owned() } else { format!("§{}", parts.join(".")) }
    }
}

fn claims() -> Vec<Claim> {
    let claims: Claims = toml::from_str(&source::read(CLAIMS)).unwrap_or_else(|error| panic!("{CLAIMS}: {error}"));
    claims.rfc
}

fn evidence() -> BTreeMap<u32, Evidence> {
    let mut found: BTreeMap<u32, Evidence> = BTreeMap::new();
    for file in source::files().iter().filter(|file| FOLDERS.iter().any(|folder| file.path.starts_with(folder))) {
        let comments = joined(&file.comments);
        for (number, section) in references(&comments) {
            let files = found.entry(number).or_default().sections.entry(Section::of(&section)).or_default();
            files.insert(file.path.clone());
        }
        for (number, gap) in gaps(&file.comments) {
            found.entry(number).or_default().gaps.insert((gap, file.path.clone()));
        }
    }
    found
}

/// Comment lines as running text, so that a reference may stand across a line break.
fn joined(comments: &str) -> String {
    let words = comments.lines().map(|line| line.trim().trim_start_matches(['/', '!', '*']));
    words.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

/// Every `RFC 5321 §4.5, §4.6` and what continues it (`RFC 9051 §2.3.1, 7162 §3.1`); gaps are no references.
fn references(text: &str) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("RFC ") {
        if text[..at].ends_with("todo ") {
            continue;
        }
        let mut rest = &text[at + 4..];
        while let Some((number, after)) = number(rest) {
            let (sections, after) = sections(after);
            if sections.is_empty() {
                found.push((number, String::new()));
            }
            found.extend(sections.into_iter().map(|section| (number, section)));
            match after.strip_prefix(", ").or_else(|| after.strip_prefix(" and ")) {
                Some(next) => rest = next,
                None => break,
            }
        }
    }
    found
}

fn number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    // Three to five digits: `RFC 822` to `RFC 10000`; a smaller number after a comma is something else.
    (3..=5).contains(&end).then(|| text[..end].parse().ok().map(|number| (number, &text[end..]))).flatten()
}

/// The sections that follow a number, and the text after them.
fn sections(mut text: &str) -> (Vec<String>, &str) {
    let mut found = Vec::new();
    loop {
        let before =
            ["", " ", ", ", " and ", "–"].into_iter().find_map(|joint| text.strip_prefix(joint)?.strip_prefix('§'));
        let Some(after) = before else {
            return (found, text);
        };
        let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(after.len());
        let section = after[..end].trim_end_matches('.');
        found.push(section.to_owned());
        text = &after[section.len()..];
    }
}

/// Every `todo RFC 7162 §3.2.5: words`, to the end of its sentence.
fn gaps(comments: &str) -> Vec<(u32, String)> {
    let lines: Vec<&str> = comments.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some((_, gap)) = line.split_once("todo RFC ") else { continue };
        let Some((number, after)) = number(gap) else { continue };
        let mut words = after.trim().to_owned();
        for next in lines[index + 1..].iter().take_while(|line| line.starts_with("//")) {
            if words.ends_with('.') {
                break;
            }
            words = format!("{words} {}", next.trim_start_matches(['/', '!']).trim());
        }
        found.push((number, words.trim_end_matches('.').to_owned()));
    }
    found
}

fn table(claims: &[Claim], evidence: &BTreeMap<u32, Evidence>) -> String {
    let none = Evidence::default();
    let mut text = String::from(
        "# Standards\n\n\
         Made by `tests/tidy/rfc.rs` from `docs/rfc.toml` and from the references and gaps in the source; do not edit.\n\
         `POSTHOUSE_BLESS=1 cargo test --test main rfc` makes it anew.\n\n\
         *yes*: what concerns a server of our kind is done. *partial*: the gaps are named below. *planned* and *no*: \
         nothing of it is done but what a note or a cited section says.\n\n\
         | RFC | title | status | sections cited | gaps |\n|---|---|---|---|---|\n",
    );
    for claim in claims {
        let found = evidence.get(&claim.number).unwrap_or(&none);
        let count = |count: usize| if count == 0 { String::new() } else { count.to_string() };
        let cited = found.sections.keys().filter(|section| !section.0.is_empty()).count();
        let gaps = found.gaps.len() + usize::from(claim.status == Status::Partial && !claim.note.is_empty());
        let (number, status) = (claim.number, claim.status.word());
        let _ = writeln!(text, "| {number} | {} | {status} | {} | {} |", claim.title, count(cited), count(gaps));
    }
    for claim in claims {
        let found = evidence.get(&claim.number).unwrap_or(&none);
        if found.sections.is_empty() && found.gaps.is_empty() && claim.note.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n## RFC {}: {}\n", claim.number, claim.title);
        if !claim.note.is_empty() {
            let _ = writeln!(text, "{}\n", claim.note);
        }
        for (gap, file) in &found.gaps {
            let _ = writeln!(text, "- gap {gap} ([{file}](../{file}))");
        }
        for (section, files) in &found.sections {
            let links: Vec<String> = files.iter().map(|file| format!("[{file}](../{file})")).collect();
            let _ = writeln!(text, "- {}: {}", section.show(), links.join(", "));
        }
    }
    text
}

#[test]
fn every_claim_is_borne_out_by_the_source() {
    let claims = claims();
    let evidence = evidence();
    let mut findings = Vec::new();
    for claim in &claims {
        let found = evidence.get(&claim.number);
        let cites = found.is_some_and(|found| !found.sections.is_empty());
        let gaps = found.is_some_and(|found| !found.gaps.is_empty());
        let complaint = match claim.status {
            Status::Yes if !cites => "is claimed, but no line cites it",
            Status::Yes if gaps => "is claimed in full, but the source names gaps: partial",
            Status::Partial if !cites => "is claimed in part, but no line cites it",
            Status::Partial if !gaps && claim.note.is_empty() => "is partial, but nothing says what is missing",
            _ => continue,
        };
        findings.push(format!("RFC {} {complaint}", claim.number));
    }
    for (number, found) in evidence.iter().filter(|(number, _)| !claims.iter().any(|claim| claim.number == **number)) {
        let place = found.sections.values().flatten().chain(found.gaps.iter().map(|(_, file)| file)).next();
        findings.push(format!("RFC {number} is cited ({}) but not in {CLAIMS}", place.map_or("", String::as_str)));
    }
    let ascends = claims.windows(2).all(|pair| pair[0].number < pair[1].number);
    if !ascends {
        findings.push(format!("{CLAIMS} is not in ascending order"));
    }
    assert_none("claims about standards", &findings);
}

#[test]
fn the_rfc_table_is_up_to_date() {
    let made = table(&claims(), &evidence());
    if std::env::var_os("POSTHOUSE_BLESS").is_some() {
        std::fs::write(source::root().join(TABLE), &made).expect("a writable table");
    }
    assert!(made == source::read(TABLE), "{TABLE} is stale: POSTHOUSE_BLESS=1 cargo test --test main rfc");
}

#[test]
fn references_are_read_as_people_write_them() {
    let read = |text: &str| {
        references(text)
            .into_iter()
            .map(|(number, section)| format!("{number} {section}"))
            .collect::<Vec<_>>()
            .join("; ")
    };
    assert_eq!(read("as RFC 5321 §4.5.3.1.8 wants"), "5321 4.5.3.1.8");
    assert_eq!(read("RFC 9051 §2.3.1.1, §9. Then"), "9051 2.3.1.1; 9051 9");
    assert_eq!(read("RFC 9051 §2.3.1, 7162 §3.1"), "9051 2.3.1; 7162 3.1");
    assert_eq!(read("(RFC 1939, RFC 2595)"), "1939 ; 2595 ");
    assert_eq!(read("todo RFC 7162 §3.2.5: x"), "");
}
