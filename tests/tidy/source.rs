//! Rust source as the rules need it: code, comments and test code told apart, line by line.
//!
//! A small scanner instead of a parser: it knows comments, strings, characters and braces, which is all that the rules ask.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// The folders that hold our Rust.
const ROOTS: [&str; 6] = ["src", "actors", "cluster", "conf", "chaos", "tests"];

/// One source file. `code` and `comments` have the same lines as the file, with everything else blanked.
pub struct SourceFile {
    /// Relative to the root, with `/`.
    pub path: String,
    pub text: String,
    pub code: String,
    pub comments: String,
    /// Lines (from 1) that exist only for tests.
    test_lines: Vec<RangeInclusive<usize>>,
}

/// A function with a body.
pub struct Function {
    pub name: String,
    pub lines: RangeInclusive<usize>,
    pub signature: String,
    pub body: String,
    pub is_public: bool,
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every Rust file of the tree, sorted by path.
pub fn files() -> Vec<SourceFile> {
    let mut paths = Vec::new();
    for folder in ROOTS {
        walk(&root().join(folder), &mut paths);
    }
    paths.sort();
    let mut files: Vec<SourceFile> = paths.iter().map(|path| SourceFile::load(path)).collect();
    mark_test_modules(&mut files);
    files
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// `#[cfg(test)] mod name;` makes a whole file test code.
fn mark_test_modules(files: &mut [SourceFile]) {
    let mut whole = Vec::new();
    for file in files.iter() {
        for name in file.code.split("#[cfg(test)]").skip(1).filter_map(out_of_line_module) {
            let folder = match file.path.rsplit_once('/') {
                Some((folder, "lib.rs" | "main.rs")) => folder.to_owned(),
                _ => file.path.trim_end_matches(".rs").to_owned(),
            };
            whole.push(format!("{folder}/{name}"));
        }
    }
    for file in files {
        let is_test = |stem: &String| file.path == format!("{stem}.rs") || file.path.starts_with(&format!("{stem}/"));
        if whole.iter().any(is_test) {
            file.test_lines = vec![1..=file.text.lines().count()];
        }
    }
}

fn out_of_line_module(after_attribute: &str) -> Option<&str> {
    let mut rest = after_attribute.trim_start();
    while let Some(attribute) = rest.strip_prefix("#[") {
        rest = attribute.split_once(']')?.1.trim_start();
    }
    // Visibility, whichever it is.
    if let Some(public) = rest.strip_prefix("pub") {
        rest = public.trim_start();
        if rest.starts_with('(') {
            rest = rest.split_once(')')?.1.trim_start();
        }
    }
    let name = rest.strip_prefix("mod ")?;
    let end = name.find(|c: char| !is_word(c))?;
    name[end..].trim_start().starts_with(';').then_some(&name[..end])
}

impl SourceFile {
    fn load(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let relative = path.strip_prefix(root()).expect("a file below the root");
        Self::of(&relative.to_string_lossy().replace('\\', "/"), text)
    }

    fn of(path: &str, text: String) -> Self {
        let (code, comments) = separate(&text);
        let test_lines = test_lines(&code);
        Self { path: path.to_owned(), text, code, comments, test_lines }
    }

    pub fn is_test_line(&self, line: usize) -> bool {
        self.path.starts_with("tests/") || self.test_lines.iter().any(|range| range.contains(&line))
    }

    /// Lines of code (from 1) with comments and strings blanked, without those that are only for tests.
    pub fn production_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
            .filter(|(line, _)| !self.is_test_line(*line))
    }

    pub fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        let mut from = 0;
        while let Some(at) = find_word(&self.code, "fn", from) {
            from = at + 2;
            functions.extend(function_at(&self.code, at));
        }
        functions
    }
}

fn function_at(code: &str, at: usize) -> Option<Function> {
    let rest = code[at + 2..].trim_start();
    let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
    if name.is_empty() {
        return None;
    }
    let open = body_start(code, at)?;
    let close = matching_brace(code, open)?;
    let line_start = code[..at].rfind('\n').map_or(0, |index| index + 1);
    Some(Function {
        name,
        lines: line_of(code, at)..=line_of(code, close),
        signature: code[at..open].to_owned(),
        body: code[open..=close].to_owned(),
        is_public: code[line_start..at].trim_start().starts_with("pub"),
    })
}

/// The brace that opens the body of the `fn` at `at`; none for a declaration without a body.
fn body_start(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (index, c) in code[at..].char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(at + index),
            ';' if depth == 0 => return None,
            _ => {}
        }
        if depth < 0 {
            return None;
        }
    }
    None
}

fn matching_brace(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0_u32;
    for (index, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(open + index);
                }
            }
            _ => {}
        }
    }
    None
}

fn test_lines(code: &str) -> Vec<RangeInclusive<usize>> {
    let mut ranges = Vec::new();
    for marker in ["#[cfg(test)]", "#[cfg(all(test"] {
        for (at, _) in code.match_indices(marker) {
            let end = code[at..].find(['{', ';']).map_or(code.len() - 1, |offset| at + offset);
            let end = if code[end..].starts_with('{') { matching_brace(code, end).unwrap_or(end) } else { end };
            ranges.push(line_of(code, at)..=line_of(code, end));
        }
    }
    // `#![cfg(test)]` at the top makes the whole file test code.
    if code.contains("#![cfg(test)]") {
        ranges.push(1..=code.lines().count());
    }
    ranges
}

pub fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The next place of a whole word at or after `from`.
pub fn find_word(text: &str, word: &str, from: usize) -> Option<usize> {
    let is_whole = |at: &usize| {
        let before = text[..*at].chars().next_back().is_some_and(is_word);
        let after = text[*at + word.len()..].chars().next().is_some_and(is_word);
        !before && !after
    };
    text[from..].match_indices(word).map(|(index, _)| from + index).find(is_whole)
}

/// What the scanner is inside of.
#[derive(Clone, Copy, PartialEq)]
enum Inside {
    Code,
    LineComment,
    BlockComment(u32),
    Text,
    RawText(usize),
}

/// Splits a file into its code and its comments; each keeps the line breaks of the whole.
fn separate(text: &str) -> (String, String) {
    let mut code = String::with_capacity(text.len());
    let mut comments = String::with_capacity(text.len());
    let mut inside = Inside::Code;
    let mut rest = text;
    while !rest.is_empty() {
        let (length, next) = step(rest, inside, code.chars().next_back());
        let (taken, after) = rest.split_at(length);
        let in_comment = |state| matches!(state, Inside::LineComment | Inside::BlockComment(_));
        let is_comment = in_comment(inside) || in_comment(next);
        let is_code = inside == Inside::Code && next == Inside::Code;
        // A whole character literal is one step; a brace in it is no brace of the code.
        let is_code = is_code && !(taken.starts_with('\'') && length > 1);
        for c in taken.chars() {
            let blank = if c == '\n' { '\n' } else { ' ' };
            code.push(if is_code { c } else { blank });
            comments.push(if is_comment { c } else { blank });
        }
        inside = next;
        rest = after;
    }
    (code, comments)
}

/// How many bytes belong together at the start of `rest`, and what comes after them.
fn step(rest: &str, inside: Inside, previous: Option<char>) -> (usize, Inside) {
    let first = rest.chars().next().map_or(1, char::len_utf8);
    match inside {
        Inside::Code => step_in_code(rest, first, previous),
        Inside::LineComment if rest.starts_with('\n') => (1, Inside::Code),
        Inside::BlockComment(depth) if rest.starts_with("/*") => (2, Inside::BlockComment(depth + 1)),
        Inside::BlockComment(1) if rest.starts_with("*/") => (2, Inside::Code),
        Inside::BlockComment(depth) if rest.starts_with("*/") => (2, Inside::BlockComment(depth - 1)),
        Inside::Text if rest.starts_with('\\') => {
            (1 + rest[1..].chars().next().map_or(0, char::len_utf8), Inside::Text)
        }
        Inside::Text if rest.starts_with('"') => (1, Inside::Code),
        Inside::RawText(hashes) if rest.starts_with('"') && rest[1..].starts_with(&"#".repeat(hashes)) => {
            (1 + hashes, Inside::Code)
        }
        same => (first, same),
    }
}

fn step_in_code(rest: &str, first: usize, previous: Option<char>) -> (usize, Inside) {
    if rest.starts_with("//") {
        return (2, Inside::LineComment);
    }
    if rest.starts_with("/*") {
        return (2, Inside::BlockComment(1));
    }
    if rest.starts_with('"') {
        return (1, Inside::Text);
    }
    if !previous.is_some_and(is_word) {
        let raw = rest.strip_prefix("br").or_else(|| rest.strip_prefix("cr")).or_else(|| rest.strip_prefix('r'));
        if let Some(after) = raw {
            let hashes = after.chars().take_while(|c| *c == '#').count();
            if after[hashes..].starts_with('"') {
                return (rest.len() - after.len() + hashes + 1, Inside::RawText(hashes));
            }
        }
    }
    if rest.starts_with('\'') {
        return (character(rest).unwrap_or(1), Inside::Code);
    }
    (first, Inside::Code)
}

/// The length of a character literal; none for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let inner = &rest[1..];
    if let Some(escape) = inner.strip_prefix('\\') {
        let skip = escape.chars().next()?.len_utf8();
        return escape[skip..].find('\'').map(|end| 2 + skip + end + 1);
    }
    let c = inner.chars().next()?;
    inner[c.len_utf8()..].starts_with('\'').then(|| 2 + c.len_utf8())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_characters_are_told_apart() {
        let text = "let d = b'{'; let a = \"// no\"; // yes \"x\"\nlet b = '\"'; let c: &'static str = r#\"} \" {\"#; /* { */ f();\n";
        let (code, comments) = separate(text);
        assert_eq!(code.matches('\n').count(), 2);
        assert!(!code.contains("no") && !code.contains("yes") && !code.contains('{'), "{code}");
        assert!(code.contains("&'static str") && code.contains("f();"), "{code}");
        assert!(comments.contains("// yes \"x\"") && !comments.contains("no"), "{comments}");
    }

    #[test]
    fn a_function_is_measured_from_fn_to_its_brace() {
        let text = "pub fn a(x: [u8; 2]) -> u8 {\n    if x[0] > 0 {\n        1\n    } else { 0 }\n}\nfn b();\n";
        let file = SourceFile::of("src/a.rs", text.to_owned());
        let functions = file.functions();
        assert_eq!(functions.len(), 1);
        assert_eq!(functions[0].lines, 1..=5);
        assert!(functions[0].is_public);
    }

    #[test]
    fn lines_of_test_modules_are_known() {
        let text = "fn a() {}\n\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n";
        let file = SourceFile::of("src/a.rs", text.to_owned());
        assert!(!file.is_test_line(1));
        assert!(file.is_test_line(5));
    }
}
