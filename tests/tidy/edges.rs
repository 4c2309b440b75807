//! Who may import whom: the fence in `docs/ARCHITECTURE.md` compared with what cargo says.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use super::{assert_none, source};

/// Opens the table in `docs/ARCHITECTURE.md`.
const TABLE: &str = "```imports\n";

/// A package as `cargo metadata` tells it: its short name, and what it depends on.
pub struct Package {
    pub name: String,
    pub dependencies: Vec<Dependency>,
}

pub struct Dependency {
    pub name: String,
    pub is_dev: bool,
}

pub fn packages() -> Vec<Package> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(source::root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    list(&metadata, "packages").iter().map(package).collect()
}

fn package(value: &Value) -> Package {
    let dependencies = list(value, "dependencies")
        .iter()
        .map(|entry| Dependency { name: text(entry, "name").to_owned(), is_dev: text(entry, "kind") == "dev" })
        .collect();
    Package { name: short(text(value, "name")).to_owned(), dependencies }
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// `posthouse-wire` is `wire` in every table; the root package is `main`.
pub fn short(name: &str) -> &str {
    if name == "posthouse" { "main" } else { name.strip_prefix("posthouse-").unwrap_or(name) }
}

/// The table, one line a crate: `cluster -> storage net conf obs`.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let document = source::read("docs/ARCHITECTURE.md");
    let table = document.split(TABLE).nth(1).and_then(|rest| rest.split("```").next()).expect("a fence `imports`");
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in table.lines().filter(|line| !line.trim().is_empty()) {
        let (from, to) = line.split_once("->").unwrap_or_else(|| panic!("no arrow in `{line}`"));
        let to = to.split_whitespace().map(str::to_owned);
        assert!(edges.insert(from.trim().to_owned(), to.collect()).is_none(), "`{from}` stands twice");
    }
    edges
}

#[test]
fn crates_import_only_along_the_directions_of_the_architecture() {
    let allowed = allowed();
    let mut findings = Vec::new();
    for package in packages() {
        let Some(edges) = allowed.get(&package.name) else {
            findings.push(format!("{}: not in the table of docs/ARCHITECTURE.md", package.name));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| d.name.starts_with("posthouse")) {
            let to = short(&dependency.name);
            let is_allowed = edges.contains(to) || (edges.contains("all") && to != "chaos" && to != "main");
            if !is_allowed {
                findings.push(format!("{} -> {to}: a new direction needs an ADR and the table", package.name));
            }
        }
    }
    assert_none("imports against the direction", &findings);
}

#[test]
fn the_table_names_only_crates_that_exist() {
    let names: BTreeSet<String> = packages().into_iter().map(|package| package.name).collect();
    let known = |name: &String| names.contains(name) || name == "all" || name == "nothing";
    let mut findings = Vec::new();
    for (from, to) in allowed() {
        findings.extend(std::iter::once(from).chain(to).filter(|name| !known(name)));
    }
    assert_none("crates of the table that do not exist", &findings);
}
